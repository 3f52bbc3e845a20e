"""Programming problems in the formats of HumanEval and MBPP: what is asked, and how an answer is tested."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sftlab.datasets.draw import draw_key
from sftlab.datasets.read import open_rows
from sftlab.errors import UserError

if TYPE_CHECKING:
    import pyarrow as pa

_FENCE = re.compile(r"```(?:[Pp]ython|py)?[ \t]*\n(.*?)(?:```|\Z)", re.DOTALL)


@dataclass(frozen=True)
class Problem:
    """One problem.

    Attributes:
        question: what a model is asked.
        stub: the beginning of the function that it completes; empty where it writes a program of its own.
        function: the name of that function.
        test: what runs after the answer.
    """

    question_id: str
    question: str
    stub: str
    function: str
    test: str

    def program(self, answer: str) -> str:
        """The program that an answer gives: its first fenced block, or the text, after the stub where it completes it.

        An answer that defines the function itself comes after what is before the function in the stub.
        """
        fenced = _FENCE.search(answer)
        code = fenced.group(1) if fenced else answer
        if not self.stub:
            return code
        start = re.search(rf"^def {re.escape(self.function)}\b", self.stub, re.MULTILINE)
        if re.search(rf"^def {re.escape(self.function)}\b", code.lstrip(), re.MULTILINE):
            before = self.stub[: start.start()] if start else ""
            return before + code.lstrip()
        return self.stub + code


def problem_schema() -> pa.Schema:
    """Columns of a table of problems: the fields of `Problem`."""
    import pyarrow as pa

    return pa.schema([(name, pa.string()) for name in Problem.__dataclass_fields__])


def problem_rows(problems: list[Problem]) -> list[dict[str, str]]:
    """Problems as rows of `problem_schema`."""
    return [asdict(problem) for problem in problems]


def read_problems(source: str, questions: int | None = None, seed: int = 0) -> list[Problem]:
    """The problems of a file, drawn by seed. Raises UserError naming file, row and field."""
    problems: dict[str, Problem] = {}
    for where, row in open_rows(Path(source)).all:
        found = _problem(row, where)
        if found.question_id in problems:
            raise UserError(
                f"the problem {found.question_id!r} is there twice", place=where, expected="each problem once"
            )
        problems[found.question_id] = found
    order = sorted(problems, key=lambda name: draw_key(seed, name))[:questions]
    return [problem for name, problem in problems.items() if name in set(order)]


def _problem(row: Mapping[str, Any], where: str) -> Problem:
    if "entry_point" in row:
        stub, function = _text(row, "prompt", where), _text(row, "entry_point", where)
        return Problem(
            question_id=str(_known(row, "task_id", where)),
            question=f"Complete this Python function. Answer with the whole function.\n\n{stub.strip()}",
            stub=stub,
            function=function,
            test=f"{_text(row, 'test', where)}\n\ncheck({function})\n",
        )
    if "test_list" in row:
        asked = _text(row, "text" if "text" in row else "prompt", where)
        tests = row["test_list"]
        if not isinstance(tests, list) or not tests or not all(isinstance(test, str) for test in tests):
            raise UserError(f"test_list is {tests!r}", place=where, value=tests, expected="a list of texts")
        setup = row.get("test_setup_code") or "\n".join(row.get("test_imports") or [])
        lines = "\n".join(tests)
        return Problem(
            question_id=str(_known(row, "task_id", where)),
            question=f"{asked.strip()}\nAnswer with Python code that passes these tests:\n{lines}",
            stub="",
            function="",
            test=f"{setup}\n{lines}\n",
        )
    raise UserError(
        f"has the fields {', '.join(row)}",
        place=where,
        expected="those of HumanEval (task_id, prompt, entry_point, test) or of MBPP (task_id, text, test_list)",
    )


def _known(row: Mapping[str, Any], name: str, where: str) -> Any:
    if row.get(name) is None:
        raise UserError(f"has no {name}", place=where, expected="a name for every problem")
    return row[name]


def _text(row: Mapping[str, Any], name: str, where: str) -> str:
    found = row.get(name)
    if not isinstance(found, str) or not found.strip():
        raise UserError(f"{name} is {found!r}", place=where, value=found, expected="a text that is not empty")
    return found
