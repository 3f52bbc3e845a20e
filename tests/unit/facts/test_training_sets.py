"""Training sets are drawn balanced, nested and by seed."""

from __future__ import annotations

from typing import Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sftlab.errors import UserError
from sftlab.facts.training_sets import (
    DrawRule,
    all_sizes,
    draw_everything,
    draw_training_set,
    even_shares,
    filled_shares,
    largest_sizes,
)
from tests.support.refusals import refused


def world(facts: int = 60) -> tuple[dict[str, str], dict[str, int]]:
    topic_of = {f"f{i}": f"T{i % 3}" for i in range(facts)}
    return topic_of, {fact: i // 3 % 5 for i, fact in enumerate(topic_of)}


def test_a_set_is_balanced_over_topics_and_of_one_bucket() -> None:
    topic_of, bucket_of_fact = world()
    chosen = draw_training_set(topic_of, bucket_of_fact, 2, 10, 0)
    assert len(set(chosen)) == 10 and {bucket_of_fact[f] for f in chosen} == {2}
    counts = [sum(topic_of[f] == t for f in chosen) for t in ("T0", "T1", "T2")]
    assert counts == [4, 3, 3]


def test_a_mixed_set_takes_as_much_of_each_bucket() -> None:
    topic_of, bucket_of_fact = world()
    chosen = draw_training_set(topic_of, bucket_of_fact, "mixed", 30, 0)
    assert [sum(bucket_of_fact[f] == b for f in chosen) for b in range(5)] == [6] * 5


def test_the_same_seed_draws_the_same_set_and_smaller_sets_are_nested() -> None:
    topic_of, bucket_of_fact = world()
    draw = [draw_training_set(topic_of, bucket_of_fact, 1, n, 7) for n in (3, 6, 6)]
    assert draw[1] == draw[2] and set(draw[0]) < set(draw[1])
    shuffled = dict(sorted(topic_of.items(), key=lambda item: item[0], reverse=True))
    assert draw_training_set(shuffled, bucket_of_fact, 1, 6, 7) == draw[1]
    assert draw_training_set(topic_of, bucket_of_fact, 1, 6, 8) != draw[1]


def test_too_few_facts_name_bucket_topic_and_both_numbers() -> None:
    topic_of, bucket_of_fact = world()
    with refused("14 facts needs 5", place="bucket 3, topic T0", value=4):
        draw_training_set(topic_of, bucket_of_fact, 3, 14, 0)


@given(st.integers(0, 1000), st.integers(1, 30))
def test_shares_add_up_and_differ_by_one_at_most(total: int, parts: int) -> None:
    shares = even_shares(total, parts)
    assert sum(shares) == total and max(shares) - min(shares) <= 1


@given(
    st.dictionaries(st.integers(0, 40), st.tuples(st.sampled_from("ABC"), st.integers(0, 4)), min_size=1),
    st.builds(DrawRule, st.sampled_from(["even", "fill", "none"]), st.sampled_from(["even", "population"])),
)
def test_the_largest_sets_can_be_drawn_and_no_larger_ones(
    facts: dict[int, tuple[str, int]], rule: DrawRule
) -> None:
    topic_of = {str(fact): topic for fact, (topic, _) in facts.items()}
    bucket_of = {str(fact): bucket for fact, (_, bucket) in facts.items() if fact % 7}
    for bucket, size in largest_sizes(topic_of, bucket_of, rule).items():
        if size:
            assert len(draw_training_set(topic_of, bucket_of, bucket, size, 0, rule)) == size
        with pytest.raises(UserError):
            draw_training_set(topic_of, bucket_of, bucket, size + 1, 0, rule)


@given(
    st.dictionaries(st.integers(0, 40), st.tuples(st.sampled_from("ABC"), st.integers(0, 4)), min_size=1),
    st.sampled_from([1, "mixed", "0:0.5+4:0.5", "1:0.3+2:0.7"]),
    st.sampled_from(["even", "population"]),
)
def test_everything_of_a_mixture_is_the_largest_set_that_its_buckets_hold(
    facts: dict[int, tuple[str, int]], bucket: int | str, mixed: Literal["even", "population"]
) -> None:
    topic_of = {str(fact): topic for fact, (topic, _) in facts.items()}
    bucket_of = {str(fact): bucket for fact, (_, bucket) in facts.items()}
    whatever = DrawRule("none", mixed)
    (size,) = all_sizes(bucket_of, [bucket], DrawRule("even", mixed)).values()
    drawable = [n for n in range(1, len(facts) + 1) if _is_drawable(topic_of, bucket_of, bucket, n, whatever)]
    assert size == max(drawable, default=0)
    if size:
        assert len(draw_everything(topic_of, bucket_of, bucket, 0, DrawRule("even", mixed))) == size


def _is_drawable(
    topic_of: dict[str, str], bucket_of: dict[str, int], bucket: int | str, size: int, rule: DrawRule
) -> bool:
    try:
        return len(draw_training_set(topic_of, bucket_of, bucket, size, 0, rule)) == size
    except UserError:
        return False


def test_everything_of_a_bucket_is_all_of_its_facts_whatever_the_topic_in_an_order_by_seed() -> None:
    topic_of, bucket_of = few()
    first, second = (draw_everything(topic_of, bucket_of, 1, seed) for seed in (0, 1))
    assert sorted(first) == sorted(second) == sorted(f for f, b in bucket_of.items() if b == 1)
    assert first != second
    mixture = draw_everything(topic_of, bucket_of, "1:0.75+4:0.25", 0)
    # All 22 facts of bucket 1 are three quarters of 29 (21.75 and 7.25); of 30 they would be 22.5 and 7.5.
    assert [sum(bucket_of[fact] == b for fact in mixture) for b in (1, 4)] == [22, 7]
    with refused("holds no facts, so there is no training set of all of them", place="bucket 3"):
        draw_everything(topic_of, bucket_of, 3, 0)


def few() -> tuple[dict[str, str], dict[str, int]]:
    """Two facts of topic A, ten of B and ten of C, all of bucket 1; twenty more of B in bucket 4."""
    topic_of = {
        f"{topic}{i}": topic for topic, count in (("A", 2), ("B", 10), ("C", 10)) for i in range(count)
    }
    buckets = dict.fromkeys(topic_of, 1)
    topic_of |= {f"known{i}": "B" for i in range(20)}
    return topic_of, buckets | {f"known{i}": 4 for i in range(20)}


def topics(topic_of: dict[str, str], chosen: list[str]) -> list[int]:
    return [sum(topic_of[fact] == topic for fact in chosen) for topic in "ABC"]


def test_fill_is_even_as_far_as_a_topic_reaches_and_takes_the_rest_from_the_others() -> None:
    topic_of, buckets = few()
    fill = DrawRule("fill")
    with refused("12 facts needs 4", place="bucket 1, topic A", value=2, advice="balance to fill"):
        draw_training_set(topic_of, buckets, 1, 12, 0)
    drawn = {size: draw_training_set(topic_of, buckets, 1, size, 0, fill) for size in (6, 12, 22)}
    assert [topics(topic_of, drawn[size]) for size in drawn] == [[2, 2, 2], [2, 5, 5], [2, 10, 10]]
    assert set(drawn[6]) < set(drawn[12]) < set(drawn[22])
    assert draw_training_set(topic_of, buckets, 1, 6, 0) == drawn[6]  # even where it can be
    with refused("23 facts needs 23", place="bucket 1", value=22):
        draw_training_set(topic_of, buckets, 1, 23, 0, fill)


def test_without_balance_a_set_has_the_first_facts_of_the_seed_whatever_their_topic() -> None:
    topic_of, buckets = few()
    none = DrawRule("none")
    assert len(set(draw_training_set(topic_of, buckets, 4, 20, 0, none))) == 20
    drawn = [topics(topic_of, draw_training_set(topic_of, buckets, 1, 11, seed, none)) for seed in range(40)]
    mean = [sum(counts[i] for counts in drawn) / 40 for i in range(3)]
    assert mean == pytest.approx([1, 5, 5], abs=0.5)  # 11 of 22


def test_a_mixed_set_of_the_population_has_buckets_as_often_as_they_occur() -> None:
    topic_of, buckets = few()
    population = DrawRule("none", "population")
    drawn = [draw_training_set(topic_of, buckets, "mixed", 21, seed, population) for seed in range(40)]
    known = [sum(buckets[fact] == 4 for fact in chosen) for chosen in drawn]
    assert sum(known) / 40 == pytest.approx(10, abs=0.7)  # 21 of 42, of which 20 are known
    even = draw_training_set(topic_of, buckets, "mixed", 6, 0, DrawRule("even", "population"))
    assert topics(topic_of, even) == [2, 2, 2]


@given(st.lists(st.integers(0, 9), min_size=1, max_size=6), st.data())
def test_filled_shares_are_as_even_as_can_be(there: list[int], data: st.DataObject) -> None:
    total = data.draw(st.integers(0, sum(there)))
    shares = filled_shares(total, there)
    assert sum(shares) == total and all(
        0 <= share <= count for share, count in zip(shares, there, strict=True)
    )
    most = max(shares)
    assert all(share == count or share >= most - 1 for share, count in zip(shares, there, strict=True))


def test_replay_adds_the_next_well_mastered_facts_to_the_same_set() -> None:
    topic_of, bucket_of = world(120)

    def draw(bucket: int | str, size: int, share: float, seed: int = 3) -> list[str]:
        return draw_training_set(topic_of, bucket_of, bucket, size, seed, DrawRule(replay=share))

    plain, some, more = (set(draw(1, 12, share)) for share in (0, 0.25, 0.5))
    assert (len(plain), len(some), len(more)) == (12, 15, 18) and plain < some < more
    assert {bucket_of[fact] for fact in more - plain} == {4}
    assert [sum(topic_of[fact] == topic for fact in some - plain) for topic in ("T0", "T1", "T2")] == [
        1,
        1,
        1,
    ]
    assert set(draw(1, 6, 0.5)) < set(draw(1, 12, 0.5)) and draw(1, 12, 0.5) != draw(1, 12, 0.5, seed=4)
    assert set(draw(1, 12, 0.5)) & set(draw(4, 6, 0)) == more - plain  # the first of bucket 4's own draw
    assert set(draw(4, 12, 0.5)) == set(draw(4, 18, 0))
    assert len(set(draw("mixed", 15, 0.3))) == 20  # 4.5 facts are five


def test_too_few_facts_to_replay_are_named() -> None:
    topic_of, bucket_of = world()
    with refused("10 facts needs 5", place="replay, bucket 4, topic T0", value=4):
        draw_training_set(topic_of, bucket_of, 3, 10, 0, DrawRule(replay=1.4))


def test_all_of_a_bucket_is_drawn_with_replayed_facts_beside_it() -> None:
    topic_of = {f"f{i}": "ab"[i % 2] for i in range(40)}
    bucket_of = {fact: 4 if number < 20 else 1 for number, fact in enumerate(topic_of)}
    drawn = draw_everything(topic_of, bucket_of, 1, 0, DrawRule(replay=0.3))
    assert {fact for fact, bucket in bucket_of.items() if bucket == 1} < set(drawn)
    assert sorted(bucket_of[fact] for fact in drawn) == [1] * 20 + [4] * 6
