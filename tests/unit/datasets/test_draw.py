"""Draws: nested, seeded, independent of the file's order; mixtures by exact shares."""

from __future__ import annotations

from collections import Counter
from fractions import Fraction
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sftlab.datasets import draw as draws
from sftlab.datasets.conversations import Conversation, exchange
from sftlab.datasets.draw import apportioned, draw, draw_key, leave_one_out, mixture, together, within
from sftlab.datasets.encode import Encoder
from sftlab.datasets.templates import make_template
from sftlab.errors import UserError
from tests.support.refusals import refused
from tests.support.tokenizers_built import byte_level, metaspace


def some(count: int, name: str = "q") -> list[Conversation]:
    return [exchange(f"{name}{n}", f"answer {n}", where=f"{name}.jsonl, row {n + 1}") for n in range(count)]


EXAMPLES = some(40)


def test_a_draw_is_the_beginning_of_the_order_by_hash() -> None:
    expected = sorted(EXAMPLES, key=lambda one: draw_key(3, one.key))
    assert draw(EXAMPLES, 10, 3).examples == tuple(expected[:10])
    assert draw(EXAMPLES, None, 3).examples == tuple(expected)
    assert draw(EXAMPLES, 10, 4).examples != tuple(expected[:10])


def test_the_order_of_a_seed_never_changes() -> None:
    assert [one.prompt for one in draw(EXAMPLES, 6, 0).examples] == ["q30", "q5", "q4", "q11", "q14", "q17"]
    assert exchange("a", "b").key == "9cac505b367ff8b6f48036201bc4a563"


@given(st.permutations(range(40)), st.integers(0, 5), st.integers(1, 40), st.integers(0, 39))
def test_draws_are_nested_and_do_not_depend_on_the_order_of_the_file(
    order: list[int], seed: int, size: int, smaller: int
) -> None:
    shuffled = [EXAMPLES[n] for n in order]
    large = draw(shuffled, size, seed).examples
    assert large == draw(EXAMPLES, size, seed).examples
    small = max(1, smaller % size)
    assert draw(shuffled, small, seed).examples == large[:small]


@given(st.sets(st.integers(0, 39), min_size=5), st.integers(1, 5), st.integers(0, 3))
def test_a_filter_takes_the_first_that_fit_and_asks_about_no_more_than_it_must(
    fitting: set[int], size: int, seed: int
) -> None:
    asked: list[Conversation] = []

    def fits(conversation: Conversation) -> bool:
        asked.append(conversation)
        return EXAMPLES.index(conversation) in fitting

    found = draw(EXAMPLES, size, seed, fits).examples
    assert found == draw([EXAMPLES[n] for n in fitting], size, seed).examples
    assert len(asked) <= 40
    ordered = sorted(EXAMPLES, key=lambda one: draw_key(seed, one.key))
    asked.clear()
    draw(ordered, size, seed, fits)
    assert asked == ordered[: ordered.index(found[-1]) + 1]


def test_an_added_example_displaces_one_at_most() -> None:
    before = draw(EXAMPLES[:-1], 10, 0).examples
    for added in some(30, "new"):
        after = draw([*EXAMPLES[:-1], added], 10, 0).examples
        assert len(set(before) - set(after)) <= 1
        assert [one for one in after if one in before] == [one for one in before if one in after]


def test_equal_examples_count_once_and_the_first_place_is_kept() -> None:
    again = [exchange("q1", "answer 1", where="again"), exchange("q1", "another answer")]
    found = draw([*EXAMPLES, *again], None, 0)
    assert (len(found.examples), found.distinct, found.repeated) == (41, 41, 1)
    assert "again" not in [one.where for one in found.examples]


def test_too_few_examples_are_an_error_with_both_numbers() -> None:
    with pytest.raises(UserError) as caught:
        draw(EXAMPLES, 41, 0, name="alpaca")
    assert str(caught.value) == (
        "alpaca: 41 examples are wanted, and 40 of its 40 distinct examples fit; ask for fewer, or raise max_tokens."
    )
    with refused("1 or more examples are wanted, and 0 of its 40", place="alpaca"):
        draw(EXAMPLES, None, 0, lambda _: False, name="alpaca")
    with refused("a draw of 0 examples", expected="1 or more"):
        draw(EXAMPLES, 0, 0)


def test_what_a_draw_holds_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(draws, "MAX_HELD", 200)
    assert len(draw(EXAMPLES, 10, 0).examples) == 10
    with refused("the examples drawn so far have over 200 characters"):
        draw(EXAMPLES, 40, 0)


def test_the_length_filter_asks_every_tokenizer() -> None:
    encoders = [
        Encoder(tokenizer, make_template("paper", tokenizer, "m"), "m")
        for tokenizer in (byte_level(), metaspace())
    ]
    long = exchange("q", "word " * 40)
    lengths = [encoder.length(long) for encoder in encoders]
    assert lengths[0] != lengths[1]
    assert within(encoders, max(lengths))(long)
    assert not within(encoders, max(lengths) - 1)(long)
    assert within([min(encoders, key=lambda encoder: encoder.length(long))], max(lengths) - 1)(long)


SETS = {name: draw(some(20, name), 20, 0).examples for name in ("a", "b", "c")}


def of(examples: list[Conversation]) -> Counter[str]:
    return Counter(one.prompt[0] for one in examples)


def test_a_mixture_has_its_shares_and_takes_the_beginning_of_each_draw() -> None:
    found = mixture(SETS, {"a": Fraction(1, 2), "b": Fraction(3, 10), "c": Fraction(1, 5)}, 20, 0)
    assert of(found) == {"a": 10, "b": 6, "c": 4}
    assert {one for one in found if one.prompt[0] == "a"} == set(SETS["a"][:10])
    assert [one.prompt[0] for one in found] != sorted(one.prompt[0] for one in found)
    assert mixture(SETS, {"a": Fraction(5), "b": Fraction(3), "c": Fraction(2)}, 20, 0) == found


@given(
    st.lists(st.integers(1, 50), min_size=1, max_size=6).map(
        lambda weights: {f"s{n}": Fraction(weight) for n, weight in enumerate(weights)}
    ),
    st.integers(1, 60),
)
def test_counts_are_near_the_shares_never_fall_and_are_those_of_the_highest_averages(
    shares: dict[str, Fraction], total: int
) -> None:
    counts = apportioned(total, shares)
    assert sum(counts.values()) == total
    bigger = apportioned(total + 1, shares)
    assert sorted(bigger[name] - counts[name] for name in shares)[-1] == 1
    assert all(bigger[name] >= counts[name] for name in shares)
    # Independently: one at a time from nothing.
    slow = dict.fromkeys(shares, 0)
    for _ in range(total):
        slow[max(sorted(shares), key=lambda name: shares[name] / (2 * slow[name] + 1))] += 1
    assert counts == slow


def test_mixtures_of_a_seed_are_nested() -> None:
    shares = {"a": Fraction(7), "b": Fraction(5), "c": Fraction(2)}
    for small, large in pairwise([mixture(SETS, shares, size, 0) for size in range(1, 35)]):
        assert set(small) < set(large)
        assert [one for one in large if one in small] == small


def test_all_sets_together_and_all_but_one() -> None:
    assert of(together(SETS, 0)) == {"a": 20, "b": 20, "c": 20}
    left = leave_one_out(SETS, 0)
    assert {name: dict(of(found)) for name, found in left.items()} == {
        "a": {"b": 20, "c": 20},
        "b": {"a": 20, "c": 20},
        "c": {"a": 20, "b": 20},
    }
    assert left["a"] == [one for one in together(SETS, 0) if one.prompt[0] != "a"]


@pytest.mark.parametrize(
    ("shares", "size", "message"),
    [
        ({"d": 1}, 3, "mixture: has no set 'd'; the sets are a, b, c."),
        ({"a": 0}, 3, "mixture: the share of a is 0; expected a number above 0."),
        ({"a": 1}, 21, "mixture: needs 21 examples of a, which has 20; lower its share or the size."),
        ({"a": 1}, 0, "mixture: 0 examples of 1 sets; expected 1 or more of each."),
    ],
)
def test_mixtures_that_cannot_be_made_are_refused(shares: dict[str, int], size: int, message: str) -> None:
    with pytest.raises(UserError) as caught:
        mixture(SETS, {name: Fraction(share) for name, share in shares.items()}, size, 0)
    assert str(caught.value) == message


def test_leave_one_out_needs_two_sets() -> None:
    with refused("needs two or more sets, and there is a", place="leave-one-out"):
        leave_one_out({"a": SETS["a"]}, 0)
