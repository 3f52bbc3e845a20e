"""What becomes of facts: counted by path, joined, and the percentage at which an answer returns."""

from __future__ import annotations

from sftlab.analysis.fates import Fates, fates_by, returns_at, together


def test_fates_are_counted_by_key_in_the_order_of_their_first_fact() -> None:
    #            kept   undone recovered lost   lost   left out
    tuned = [True, True, False, False, False, True]
    restored = [True, False, True, False, False, True]
    keys = [("b", 4), ("a", 0), ("b", 4), ("a", 0), ("b", 4), None]
    found = fates_by(tuned, restored, keys)
    assert list(found.items()) == [(("b", 4), Fates(1, 0, 1, 1)), (("a", 0), Fates(0, 1, 0, 1))]
    assert sum(fates.facts for fates in found.values()) == 5
    assert fates_by([], [], []) == {}


def test_fates_of_groups_add_up() -> None:
    assert together([Fates(1, 2, 3, 4), Fates(10, 20, 30, 40)]) == Fates(11, 22, 33, 44)
    assert together([]).facts == 0


def test_an_answer_returns_at_the_lowest_percentage_at_which_it_is_right() -> None:
    assert returns_at({0.0: False, 20.0: True, 5.0: True, 60.0: False}) == 5.0
    assert returns_at({0.0: False, 5.0: False}) is None
    assert returns_at({0.0: True, 5.0: False, 20.0: True}) is None  # it was never away
    assert returns_at({5.0: True}) is None  # the tuned model was not asked
