"""Result files of MT-Bench and AlpacaEval."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from sftlab.datasets.judgments import JudgmentsSpec, read_judgments
from sftlab.errors import UserError
from tests.support.refusals import refused


def written(folder: Path, *rows: dict[str, Any]) -> str:
    path = folder / "judgments.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return str(path)


def grade(model: str, question: int, turn: int, score: Any) -> dict[str, Any]:
    return {
        "question_id": question,
        "model": model,
        "judge": ["gpt-4", "single-v1"],
        "score": score,
        "turn": turn,
    }


def preference(model: str, asked: str, value: Any) -> dict[str, Any]:
    return {"instruction": asked, "generator_1": "reference", "generator_2": model, "preference": value}


def test_grades_of_both_turns_are_shares_of_ten(tmp_path: Path) -> None:
    source = written(tmp_path, grade("m", 81, 1, 7), grade("m", 81, 2, -1), grade("n", 81, 1, 2.5))
    spec = JudgmentsSpec(source=source, format="mt-bench", names={"n": "base"})
    assert read_judgments(spec) == {"m": [0.7, None], "base": [0.25]}


def test_preferences_are_wins_over_the_reference(tmp_path: Path) -> None:
    rows = [
        preference("m", "a", 2),
        preference("m", "b", 1.5),
        preference("m", "c", 1),
        preference("m", "d", None),
    ]
    spec = JudgmentsSpec(source=written(tmp_path, *rows), format="alpaca-eval")
    assert read_judgments(spec) == {"m": [1.0, 0.5, 0.0, None]}


@pytest.mark.parametrize(
    ("form", "rows", "named"),
    [
        ("mt-bench", [grade("m", 1, 1, 11)], "score is 11"),
        ("mt-bench", [grade("m", 1, 1, "9")], "score is '9'"),
        ("mt-bench", [grade("", 1, 1, 9)], "model is ''"),
        ("mt-bench", [grade("m", 1, 1, 9), grade("m", 1, 1, 8)], "an earlier row judges"),
        ("alpaca-eval", [preference("m", "a", 3)], "preference is 3"),
        ("alpaca-eval", [{"instruction": "a", "preference": 1}], "generator_2 is None"),
    ],
)
def test_rows_of_another_kind_are_refused_by_name(
    tmp_path: Path, form: Any, rows: list[dict[str, Any]], named: str
) -> None:
    with pytest.raises(UserError, match=named) as refused:
        read_judgments(JudgmentsSpec(source=written(tmp_path, *rows), format=form))
    assert "row" in str(refused.value)


@pytest.mark.parametrize(
    ("row", "problem"),
    [
        ({**grade("m", 81, 1, 7), "question_id": [81]}, r"question_id is \[81\]"),
        ({**grade("m", 81, 1, 7), "turn": {}}, "turn is {}"),
        (grade("m", 81, 1, 10**400), "score is 1000"),
    ],
)
def test_values_that_name_no_answer_or_are_no_grade_are_refused(
    row: dict[str, Any], problem: str, tmp_path: Path
) -> None:
    with refused(problem, place="judgments.jsonl, row 2"):
        read_judgments(JudgmentsSpec(source=written(tmp_path, grade("m", 80, 1, 7), row), format="mt-bench"))
