"""Training sets are drawn balanced, nested and by seed."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sftlab.errors import UserError
from sftlab.facts.training_sets import draw_training_set, even_shares, largest_sizes
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


@given(st.dictionaries(st.integers(0, 40), st.tuples(st.sampled_from("ABC"), st.integers(0, 4)), min_size=1))
def test_the_largest_sets_can_be_drawn_and_no_larger_ones(facts: dict[int, tuple[str, int]]) -> None:
    topic_of = {str(fact): topic for fact, (topic, _) in facts.items()}
    bucket_of = {str(fact): bucket for fact, (_, bucket) in facts.items() if fact % 7}
    for bucket, size in largest_sizes(topic_of, bucket_of).items():
        if size:
            assert len(draw_training_set(topic_of, bucket_of, bucket, size, 0)) == size
        with pytest.raises(UserError):
            draw_training_set(topic_of, bucket_of, bucket, size + 1, 0)
