"""The numbers of `sftlab ask`, by hand."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from sftlab.datasets.benchmark_file import BenchmarkFileSpec
from sftlab.studies.survey.ask import Asked, asked_text, summary_of, write_answers

FILE = BenchmarkFileSpec(source="b.jsonl")


def question(name: str, label: int | None = None) -> dict[str, Any]:
    return {"question_id": name, "question": f"which {name}?", "accepted": ["x"], "label": label}


def answer(name: str, score: float | None, in_form: bool | None, error: str | None = None) -> dict[str, Any]:
    return {
        "question_id": name,
        "answer": "y",
        "score": score,
        "in_form": in_form,
        "tokens": 1,
        "error": error,
    }


QUESTIONS = [question("a", 0), question("b", 1), question("c"), question("d")]
ANSWERS = [
    answer("a", 1.0, True),
    answer("b", 0.0, True),
    answer("c", 1.0, False),
    answer("d", None, None, "too long"),
]
SUMMARY = summary_of(Path("m"), FILE, "paper", QUESTIONS, ANSWERS, {"a": 0, "b": 0})


def test_numbers_are_shares_of_all_questions_and_what_was_not_asked_is_wrong() -> None:
    assert (SUMMARY["questions"], SUMMARY["score"], SUMMARY["errors"]) == (4, 0.5, 1)
    # The deviation of 1, 0, 1, 0 is the root of 1/3, over the root of 4 questions.
    assert SUMMARY["standard_error"] == pytest.approx((1 / 3) ** 0.5 / 2)
    assert (SUMMARY["in_form"], SUMMARY["score_given_form"]) == (0.5, 0.5)
    assert SUMMARY["right_by_likelihood"] == 0.5  # of the two questions with choices


def test_benchmark_without_choices_has_no_likelihood() -> None:
    found = summary_of(Path("m"), FILE, "paper", QUESTIONS[2:], ANSWERS[2:], {})
    assert found["right_by_likelihood"] is None


def test_text_shows_numbers_and_wrong_answers(tmp_path: Path) -> None:
    rows = [
        {**a, "question": q["question"], "accepted": ["x"]} for a, q in zip(ANSWERS, QUESTIONS, strict=True)
    ]
    found = Asked(SUMMARY, rows)
    text = asked_text(found)
    assert "b.jsonl: 4 questions" in text and "1, which count as wrong (the first: too long)" in text
    assert "wrong: 'which b?' -> 'y', expected 'x'" in text and "which a?" not in text
    write_answers(found, tmp_path / "out.jsonl")
    lines = (tmp_path / "out.jsonl").read_text(encoding="utf-8").splitlines()
    assert [json.loads(line)["question_id"] for line in lines] == ["a", "b", "c", "d"]
