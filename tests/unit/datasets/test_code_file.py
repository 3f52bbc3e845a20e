"""Programming problems of HumanEval and MBPP."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from sftlab.datasets.code_file import Problem, read_problems
from sftlab.errors import UserError

STUB = 'from typing import List\n\n\ndef total(xs: List[int]) -> int:\n    """Sum."""\n'
HUMAN_EVAL = {
    "task_id": "HumanEval/0",
    "prompt": STUB,
    "entry_point": "total",
    "canonical_solution": "    return sum(xs)\n",
    "test": "def check(candidate):\n    assert candidate([1, 2]) == 3\n",
}
MBPP = {
    "task_id": 11,
    "text": "Write a function to double a number.",
    "code": "def double(x): return 2 * x",
    "test_list": ["assert double(2) == 4"],
    "test_setup_code": "import math",
}


def written(folder: Path, *rows: dict[str, Any]) -> str:
    path = folder / "problems.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return str(path)


def run(problem: Problem, answer: str) -> None:
    exec(compile(problem.program(answer) + "\n" + problem.test, "program", "exec"), {})


@pytest.mark.parametrize(
    "answer",
    [
        "    return sum(xs)\n",
        "Here it is:\n```python\ndef total(xs: List[int]) -> int:\n    return sum(xs)\n```\nDone.",
        " def total(xs):\n    return sum(xs)",
        "```\n    return sum(xs)\n```",
    ],
)
def test_function_is_completed_or_written_whole(tmp_path: Path, answer: str) -> None:
    (problem,) = read_problems(written(tmp_path, HUMAN_EVAL))
    assert problem.question_id == "HumanEval/0" and STUB.strip() in problem.question
    run(problem, answer)


def test_wrong_function_does_not_pass(tmp_path: Path) -> None:
    (problem,) = read_problems(written(tmp_path, HUMAN_EVAL))
    with pytest.raises(AssertionError):
        run(problem, "    return 0\n")


def test_problem_with_tests_is_asked_with_them(tmp_path: Path) -> None:
    (problem,) = read_problems(written(tmp_path, MBPP))
    assert problem.question.endswith("assert double(2) == 4")
    assert (problem.question_id, problem.test) == ("11", "import math\nassert double(2) == 4\n")
    run(problem, "```py\ndef double(x):\n    return 2 * x\n```")


def test_fewer_problems_are_a_part_of_more(tmp_path: Path) -> None:
    source = written(tmp_path, *({**MBPP, "task_id": n} for n in range(9)))
    two, five = (read_problems(source, questions=count) for count in (2, 5))
    assert len(two) == 2 and set(two) < set(five)


@pytest.mark.parametrize(
    ("row", "named"),
    [
        ({"question": "q"}, "those of HumanEval"),
        ({**HUMAN_EVAL, "test": ""}, "test is ''"),
        ({**HUMAN_EVAL, "task_id": None}, "has no task_id"),
        ({**MBPP, "test_list": []}, "test_list"),
        ({**MBPP, "text": 3}, "text is 3"),
    ],
)
def test_rows_of_another_kind_are_refused_by_name(tmp_path: Path, row: dict[str, Any], named: str) -> None:
    with pytest.raises(UserError, match=named) as refused:
        read_problems(written(tmp_path, row))
    assert "row" in str(refused.value)
