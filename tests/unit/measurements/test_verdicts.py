"""Verdicts on free-text answers."""

from __future__ import annotations

import pytest

from sftlab.measurements.verdicts import in_form, last_number, normalized, score


@pytest.mark.parametrize(
    ("answer", "accepted", "metric", "expected"),
    [
        ("The Rhine.", ["rhine"], "exact", 1.0),
        ("the Rhine river", ["rhine"], "exact", 0.0),
        ("It is the Rhine river.", ["Rhine"], "contains", 1.0),
        ("not given", ["no"], "contains", 0.0),  # whole words only
        ("no , 5 is larger", ["no"], "contains", 1.0),
        ("2 plus 3 is 5 . 5 plus 4 is 9 .", ["9"], "number", 1.0),
        ("9 is 5 plus 4", ["9"], "number", 0.0),  # the last number counts
        ("it costs 1,250.00 dollars", ["1250"], "number", 1.0),
        ("nothing", ["0"], "number", 0.0),
        ("a b c", ["b d"], "f1", 2 * 0.5 * 0.5 / (0.5 + 0.5)),  # `a` is an article: words b, c against b, d
        ("b b", ["b"], "f1", 2 / 3),  # precision 1/2, recall 1
        ("wrong", ["b", "wrong"], "exact", 1.0),  # the best of several
        ("x", [], "exact", 0.0),
    ],
)
def test_score_of_an_answer(answer: str, accepted: list[str], metric: str, expected: float) -> None:
    assert score(answer, accepted, metric) == pytest.approx(expected)  # type: ignore[arg-type]


def test_two_normal_forms_of_one_text_are_equal() -> None:
    assert score("Zu\u0308rich", ["Z\u00fcrich"], "exact") == 1.0


def test_normalized_text_has_no_case_punctuation_articles_or_extra_blanks() -> None:
    assert normalized("  An  apple, (the)\tRed one! ") == "apple red one"


@pytest.mark.parametrize(
    ("answer", "metric", "form", "expected"),
    [
        ("it is 7 .", "number", None, True),
        ("not given", "number", None, False),
        (" . ! ", "exact", None, False),
        ("word", "exact", None, True),
        ("B) because", "exact", r"^[A-D]\b", True),
        ("because B", "exact", r"^[A-D]\b", False),
    ],
)
def test_form_of_an_answer(answer: str, metric: str, form: str | None, expected: bool) -> None:
    assert in_form(answer, metric, form) is expected  # type: ignore[arg-type]


def test_last_number_reads_signs_and_decimals() -> None:
    assert last_number("from 3 to -1,000.5") == -1000.5
    assert last_number("none") is None
