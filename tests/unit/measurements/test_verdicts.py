"""Verdicts on free-text answers."""

from __future__ import annotations

from itertools import combinations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

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
        (
            "Police killed the gunman.",
            ["police kill gunman"],
            "rouge-l",
            2 / 3,
        ),  # police .. gunman: 2 of 3 and 3
        ("gunman police killed", ["police kill gunman"], "rouge-l", 1 / 3),  # only one of the two is in order
        ("gunman police killed", ["police kill gunman"], "f1", 2 / 3),
        ("b c b d", ["b b d"], "rouge-l", 6 / 7),  # b b d: 3 of 4 and of 3
        ("b", ["c", "d b e"], "rouge-l", 0.5),  # the best of several: 1 of 1 and of 3
        (". the", ["b"], "rouge-l", 0.0),  # no word is left
        ("wrong", ["b", "wrong"], "exact", 1.0),  # the best of several
        ("x", [], "exact", 0.0),
    ],
)
def test_score_of_an_answer(answer: str, accepted: list[str], metric: str, expected: float) -> None:
    assert score(answer, accepted, metric) == pytest.approx(expected)  # type: ignore[arg-type]


@given(st.text("bc d", max_size=12), st.text("bc d", max_size=12))
@settings(max_examples=60)
def test_rouge_l_counts_the_longest_choice_of_words_in_order(answer: str, accepted: str) -> None:
    words, others = answer.split(), accepted.split()
    chosen = {
        kept
        for size in range(len(others) + 1)
        for kept in combinations(others, size)
        if is_within(kept, words)
    }
    total = len(words) + len(others)
    expected = 2 * max(map(len, chosen)) / total if total else 1.0
    assert score(answer, [accepted], "rouge-l") == pytest.approx(expected)


def is_within(kept: tuple[str, ...], words: list[str]) -> bool:
    """Whether `words` has these words in this order."""
    rest = iter(words)
    return all(word in rest for word in kept)


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
