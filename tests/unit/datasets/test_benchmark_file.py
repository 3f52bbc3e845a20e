"""Files of benchmark questions."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any, get_type_hints

import pytest

from sftlab.cli.rank import Questions
from sftlab.datasets.benchmark_file import METRICS, BenchmarkFileSpec, read_benchmark, read_shots
from sftlab.errors import UserError


def written(folder: Path, *rows: dict[str, Any]) -> Path:
    path = folder / "support.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def test_questions_with_one_and_several_answers(tmp_path: Path) -> None:
    path = written(
        tmp_path,
        {"question": "Where is the key?", "answer": "in the box", "id": "key"},
        {"question": "How many?", "answers": [3, "three"], "metric": "number"},
    )
    first, second = read_benchmark(BenchmarkFileSpec(source=str(path), metric="contains"))
    assert first == {
        "question_id": "key",
        "question": "Where is the key?",
        "accepted": ["in the box"],
        "metric": "contains",
        "form": None,
        "choices": [],
        "label": None,
    }
    assert (second["accepted"], second["metric"]) == (["3", "three"], "number")


def test_examples_are_not_asked_and_do_not_depend_on_the_number_of_questions(tmp_path: Path) -> None:
    path = written(tmp_path, *({"question": f"q{n}", "answer": f"a{n}"} for n in range(8)))
    shown = read_shots(BenchmarkFileSpec(source=str(path), shots=3))
    asked = [row["question"] for row in read_benchmark(BenchmarkFileSpec(source=str(path), shots=3))]
    assert {question for question, _ in shown} | set(asked) == {f"q{n}" for n in range(8)}
    assert (len(shown), len(asked)) == (3, 5)
    assert all(answer == question.replace("q", "a") for question, answer in shown)
    fewer = BenchmarkFileSpec(source=str(path), shots=3, questions=2)
    assert read_shots(fewer) == shown
    assert [row["question"] for row in read_benchmark(fewer)] == [
        row["question"] for row in read_benchmark(BenchmarkFileSpec(source=str(path), questions=2))
    ]


def test_example_of_a_question_with_choices_is_the_right_one(tmp_path: Path) -> None:
    rows = [{"question": f"q{n}", "choices": ["no", "yes"], "label": 1} for n in range(2)]
    shown = read_shots(BenchmarkFileSpec(source=str(written(tmp_path, *rows)), shots=1))
    assert [answer for _, answer in shown] == ["yes"]


def test_file_with_no_question_left_for_asking_is_refused(tmp_path: Path) -> None:
    path = written(tmp_path, {"question": "q", "answer": "a"})
    with pytest.raises(UserError, match="lower `shots`"):
        read_benchmark(BenchmarkFileSpec(source=str(path), shots=1))


@pytest.mark.parametrize("label", [1, "B", "b", "blue"])
def test_label_is_a_place_a_letter_or_the_text(tmp_path: Path, label: int | str) -> None:
    path = written(tmp_path, {"question": "Which?", "choices": ["red", "blue"], "label": label})
    (row,) = read_benchmark(BenchmarkFileSpec(source=str(path)))
    assert (row["accepted"], row["label"]) == (["blue"], 1)


@pytest.mark.parametrize(
    ("row", "named"),
    [
        ({"question": " ", "answer": "x"}, "question"),
        ({"question": "q"}, "has no answer; give answer, answers, or choices with a label"),
        ({"question": "q", "choices": ["a", "b"]}, "has choices and no label; give `label`"),
        ({"question": "q", "answer": ""}, "answer"),
        ({"question": "q", "choices": ["a", "b"], "label": "C"}, "label"),
        ({"question": "q", "choices": ["a", "b"], "label": True}, "label"),
        ({"question": "q", "choices": ["a", "a"], "label": 0}, "choices"),
        ({"question": "q", "label": 0, "answer": "x"}, "label"),
        ({"question": "q", "anwser": "x"}, "'answer'"),
        ({"question": "q", "answer": "x", "metric": "exakt"}, "'exact'"),
        ({"question": "q", "answer": "x", "form": "("}, "form"),
        ({"question": "q", "answer": "x", "form": ["a"]}, "form"),
    ],
)
def test_bad_row_is_refused_with_file_row_and_field(tmp_path: Path, row: dict[str, Any], named: str) -> None:
    path = written(tmp_path, {"question": "good", "answer": "x"}, row)
    with pytest.raises(UserError) as refused:
        read_benchmark(BenchmarkFileSpec(source=str(path)))
    assert f"{path}, row 2: " in str(refused.value)
    assert named in str(refused.value)


def test_one_question_twice_is_refused(tmp_path: Path) -> None:
    path = written(tmp_path, {"question": "q", "answer": "x"}, {"question": "q", "answer": "y"})
    with pytest.raises(UserError, match="is there twice"):
        read_benchmark(BenchmarkFileSpec(source=str(path)))


def test_form_that_is_no_regular_expression_is_refused() -> None:
    with pytest.raises(ValueError, match="no regular expression"):
        BenchmarkFileSpec(source="x.jsonl", form="(")


def test_draws_of_questions_are_nested_and_in_the_order_of_the_file(tmp_path: Path) -> None:
    path = written(tmp_path, *({"question": f"q{n}", "answer": "x", "id": str(n)} for n in range(30)))
    drawn = {
        count: [
            int(row["question_id"])
            for row in read_benchmark(BenchmarkFileSpec(source=str(path), questions=count))
        ]
        for count in (5, 20, 100)
    }
    assert drawn[100] == list(range(30))
    assert set(drawn[5]) < set(drawn[20])
    assert drawn[20] == sorted(drawn[20])
    assert [len(found) for found in drawn.values()] == [5, 20, 30]


def test_the_help_of_ask_names_all_metrics() -> None:
    (option,) = get_type_hints(Questions, include_extras=True)["metric"].__metadata__
    assert set(re.split(r", | or ", option.help.removesuffix(", where a question names none."))) == set(
        METRICS
    )
