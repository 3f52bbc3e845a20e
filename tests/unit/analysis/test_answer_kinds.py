"""Kinds of answers: which kind a text has, and how kinds are counted."""

from __future__ import annotations

import pytest

from sftlab.analysis.answer_kinds import Kinds, kind_of, kinds_by, together

OWN, TOPIC = {"lyon", "lugdunum"}, {"lyon", "lugdunum", "paris", "rome"}


@pytest.mark.parametrize(
    ("answer", "correct", "kind"),
    [
        ("in lyon", True, "right"),  # the verdict counts, whatever else the text holds
        ("paris", False, "other_entity"),
        ("paris of course", False, "malformed"),  # the whole answer has to be the other entity
        ("lugdunum", False, "malformed"),  # accepted after normalisation, and not to the letter
        ("", False, "malformed"),  # an article alone
        (None, False, "no_answer"),
        (None, None, "no_answer"),  # the question could not be asked
    ],
)
def test_an_answer_has_one_kind(answer: str | None, correct: bool | None, kind: str) -> None:
    assert kind_of(answer, correct, OWN, TOPIC) == kind


def test_kinds_are_counted_by_key_and_those_without_a_key_are_left_out() -> None:
    found = kinds_by(["right", "other_entity", "no_answer", "malformed", "right"], ["b", "a", "a", None, "b"])
    assert list(found.items()) == [("b", Kinds(2, 0, 0, 0)), ("a", Kinds(0, 1, 1, 0))]
    both = together(list(found.values()))
    assert (both, both.answers, both.wrong) == (Kinds(2, 1, 1, 0), 4, 2)
    assert together([]) == Kinds(0, 0, 0, 0)
