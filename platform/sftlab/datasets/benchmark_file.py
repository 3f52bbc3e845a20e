"""Benchmarks of the user's: a file of questions with accepted answers, or with choices of which one is right."""

from __future__ import annotations

import re
from collections.abc import Mapping
from hashlib import sha256
from pathlib import Path
from typing import Any, Literal, get_args

from pydantic import Field, field_validator

from sftlab.config.documents import unknown_hint
from sftlab.config.frozen import Frozen
from sftlab.datasets.draw import draw_key
from sftlab.datasets.read import open_rows
from sftlab.errors import UserError

FIELDS = ("question", "answer", "answers", "choices", "label", "id", "metric", "form")
Metric = Literal[
    "exact", "contains", "number", "f1", "rouge-l"
]  # `measurements.verdicts` has the definitions
METRICS: tuple[str, ...] = get_args(Metric)


class BenchmarkFileSpec(Frozen):
    """One file of questions and how the answers are judged."""

    source: str = Field(description="File: .jsonl, .ndjson, .json (each also .gz) or .parquet.")
    metric: Metric = Field(
        default="exact", description="Verdict on an answer, where a row does not name another."
    )
    form: str | None = Field(
        default=None, description="Regular expression that an answer in the asked form matches."
    )
    max_tokens: int = Field(default=32, ge=1, description="Longest answer, in tokens.")
    questions: int | None = Field(
        default=None, ge=1, description="Questions that are asked, drawn by seed; all if unset."
    )
    seed: int = Field(default=0, ge=0, description="Seed of the draw; draws of one seed are nested.")
    shots: int | None = Field(
        default=None,
        ge=1,
        description="Examples before each question, drawn by seed and never asked; without them it is asked too.",
    )
    group: str | None = Field(default=None, description="Label for reports, such as knowledge or maths.")

    @field_validator("form")
    @classmethod
    def _expression(cls, form: str | None) -> str | None:
        try:
            re.compile(form or "")
        except re.error as error:
            raise ValueError(f"{form!r} is no regular expression ({error})") from None
        return form


def read_benchmark(spec: BenchmarkFileSpec) -> list[dict[str, Any]]:
    """The questions of a file as rows of `measurements.benchmarks.question_schema`.

    A row has `question`, and `answer` or `answers` (texts), or `choices` with `label` (the right one, its place from 0,
    or a letter from A). Examples of `shots` are not among them. Raises UserError naming file, row and field.
    """
    return _split(spec)[0]


def read_shots(spec: BenchmarkFileSpec) -> tuple[tuple[str, str], ...]:
    """The examples before each question: question and right answer, the first of several. Raises UserError too."""
    return tuple((row["question"], row["accepted"][0]) for row in _split(spec)[1])


def _split(spec: BenchmarkFileSpec) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """The questions in the order of the file, and the examples: the last ones of the draw, so that fewer questions
    leave them unchanged.
    """
    rows = _rows(spec)
    shots = spec.shots or 0
    if shots >= len(rows):
        raise UserError(
            f"has {len(rows)} questions, and shots = {shots} of them are examples",
            place=spec.source,
            value=shots,
            expected="a question that is no example",
            advice="lower `shots`.",
        )
    order = sorted(range(len(rows)), key=lambda number: draw_key(spec.seed, rows[number]["question_id"]))
    asked, examples = order[: len(rows) - shots][: spec.questions], order[len(rows) - shots :]
    return [rows[number] for number in sorted(asked)], [rows[number] for number in examples]


def _rows(spec: BenchmarkFileSpec) -> list[dict[str, Any]]:
    rows = [_row(spec, where, row) for where, row in open_rows(Path(spec.source)).all]
    first: dict[str, int] = {}
    for number, row in enumerate(rows):
        name = row["question_id"]
        if name in first:
            raise UserError(
                f"the question {row['question'][:60]!r} with the id {name!r} is there twice",
                place=spec.source,
                value=row["question"][:60],
                expected="each question once",
                advice="remove one, or give the rows different ids.",
            )
        first[name] = number
    return rows


def _row(spec: BenchmarkFileSpec, where: str, row: Mapping[str, Any]) -> dict[str, Any]:
    unknown = next((name for name in row if name not in FIELDS), None)
    if unknown is not None:
        raise UserError(
            f"has the unknown field {unknown!r}",
            place=where,
            value=unknown,
            advice=unknown_hint(unknown, FIELDS),
        )
    asked = _text(row, "question", where)
    accepted, choices, label = _answers(row, where)
    metric = row.get("metric") or spec.metric
    if metric not in METRICS:
        raise UserError(
            f"metric is {metric!r}", place=where, value=metric, advice=unknown_hint(str(metric), METRICS)
        )
    return {
        "question_id": str(row.get("id") or sha256(asked.encode()).hexdigest()[:16]),
        "question": asked,
        "accepted": accepted,
        "metric": metric,
        "form": _form(row, where) or spec.form,
        "choices": choices,
        "label": label,
    }


def _form(row: Mapping[str, Any], where: str) -> str | None:
    """The regular expression of a row; None without one."""
    found = row.get("form")
    if found is None or found == "":
        return None
    try:
        if isinstance(found, str) and re.compile(found):
            return found
        reason = "no text"
    except (re.error, RecursionError, OverflowError) as error:
        reason = str(error)
    raise UserError(
        f"form is {found!r} ({reason})", place=where, value=found, expected="a regular expression"
    )


def _answers(row: Mapping[str, Any], where: str) -> tuple[list[str], list[str], int | None]:
    """Accepted texts, choices, and the place of the right choice."""
    choices = _texts(row.get("choices"), "choices", where) if row.get("choices") is not None else []
    if not choices:
        if row.get("label") is not None:
            raise UserError(
                "has a label and no choices", place=where, expected="a list of choices, or an answer"
            )
        given = row.get("answers") if row.get("answers") is not None else row.get("answer")
        if given is None:
            raise UserError(
                "has no answer", place=where, advice="give answer, answers, or choices with a label."
            )
        named = "answers" if row.get("answers") is not None else "answer"
        return _texts(given if isinstance(given, list) else [given], named, where), [], None
    if len(choices) < 2 or len(set(choices)) < len(choices):
        raise UserError(f"choices are {choices}", place=where, expected="two or more different texts")
    given = row.get("label", row.get("answer"))
    if given is None:
        raise UserError(
            "has choices and no label",
            place=where,
            advice="give `label`: the right text, its place from 0, or a letter from A.",
        )
    label = _label(given, choices, where)
    return [choices[label]], choices, label


def _label(given: Any, choices: list[str], where: str) -> int:
    if isinstance(given, str):
        if given in choices:
            return choices.index(given)
        place = ord(given.upper()) - ord("A") if len(given) == 1 else -1
    else:
        place = given if isinstance(given, int) and not isinstance(given, bool) else -1
    if not 0 <= place < len(choices):
        last = chr(ord("A") + len(choices) - 1)
        raise UserError(
            f"label is {given!r}, which is not among its choices",
            place=where,
            value=given,
            expected=(
                f"one of the texts {choices}, a place from 0 to {len(choices) - 1}, or a letter from "
                f"A to {last}"
            ),
        )
    return place


def _text(row: Mapping[str, Any], name: str, where: str) -> str:
    found = row.get(name)
    if not isinstance(found, str) or not found.strip():
        raise UserError(f"{name} is {found!r}", place=where, value=found, expected="a text that is not empty")
    return found.strip()


def _texts(given: Any, name: str, where: str) -> list[str]:
    """Texts of a list; numbers are read as texts."""
    if not isinstance(given, list) or not given:
        raise UserError(
            f"{name} is {given!r}", place=where, value=given, expected="a text or a list of texts"
        )
    texts = [
        str(text) if isinstance(text, int | float) and not isinstance(text, bool) else text for text in given
    ]
    for text in texts:
        if not isinstance(text, str) or not text.strip():
            raise UserError(
                f"{name} holds {text!r}", place=where, value=text, expected="texts that are not empty"
            )
    return texts
