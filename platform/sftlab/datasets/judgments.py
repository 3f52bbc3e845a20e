"""Result files of benchmarks that a judge model scores elsewhere: MT-Bench and AlpacaEval, as scores of models."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from sftlab.config.frozen import Frozen
from sftlab.datasets.read import open_rows
from sftlab.errors import UserError

Format = Literal["mt-bench", "alpaca-eval"]
HIGHEST = 10  # grade of MT-Bench
LARGEST = 2**53  # larger numbers are no judgments, and the largest have no float


class JudgmentsSpec(Frozen):
    """A file of judgments on the survey's models."""

    source: str = Field(description="File: .jsonl, .ndjson, .json (each also .gz) or .parquet.")
    format: Format = Field(
        description="mt-bench: single-answer grades of FastChat; alpaca-eval: annotations with a preference."
    )
    names: dict[str, str] = Field(
        default_factory=dict,
        description="By a model's name in the file its name in the survey, where they differ.",
    )


def read_judgments(spec: JudgmentsSpec) -> dict[str, list[float | None]]:
    """By model its judgments in [0, 1]; None where the judge gave none.

    mt-bench: the grade divided by 10, of both turns; a grade of -1 is none. alpaca-eval: the preference for the model's
    answer over that of the reference, preference - 1; its mean is the win rate, not controlled for length. Raises
    UserError naming file, row and field.
    """
    read = _mt_bench if spec.format == "mt-bench" else _alpaca_eval
    found: dict[str, list[float | None]] = {}
    seen: set[tuple[Any, ...]] = set()
    for where, row in open_rows(Path(spec.source)).all:
        model, key, judgment = read(row, where)
        if (model, *key) in seen:
            raise UserError(
                f"judges an answer of {model!r} that an earlier row judges",
                place=where,
                value=key,
                expected="one judgment an answer",
                advice="give the file of one judge.",
            )
        seen.add((model, *key))
        found.setdefault(spec.names.get(model, model), []).append(judgment)
    return found


def _mt_bench(row: Mapping[str, Any], where: str) -> tuple[str, tuple[Any, ...], float | None]:
    model, grade = _text(row, "model", where), _number(row, "score", where)
    key = _key(row, "question_id", where), _key(row, "turn", where)
    if grade == -1:
        return model, key, None
    if not 0 <= grade <= HIGHEST:
        raise UserError(
            f"score is {grade:g}",
            place=where,
            value=grade,
            expected=f"a grade from 0 to {HIGHEST}, or -1 for none",
        )
    return model, key, grade / HIGHEST


def _alpaca_eval(row: Mapping[str, Any], where: str) -> tuple[str, tuple[Any, ...], float | None]:
    model, asked = _text(row, "generator_2", where), _text(row, "instruction", where)
    if row.get("preference") is None:
        return model, (asked,), None
    preference = _number(row, "preference", where)
    if not 1 <= preference <= 2:
        raise UserError(
            f"preference is {preference:g}",
            place=where,
            value=preference,
            expected="a number from 1 (the reference, output_1) to 2 (the model, output_2)",
        )
    return model, (asked,), preference - 1


def _text(row: Mapping[str, Any], name: str, where: str) -> str:
    found = row.get(name)
    if not isinstance(found, str) or not found:
        raise UserError(f"{name} is {found!r}", place=where, value=found, expected="a text that is not empty")
    return found


def _key(row: Mapping[str, Any], name: str, where: str) -> str | int | None:
    found = row.get(name)
    if found is not None and not isinstance(found, str | int):
        raise UserError(f"{name} is {found!r}", place=where, value=found, expected="a number or a text")
    return found


def _number(row: Mapping[str, Any], name: str, where: str) -> float:
    found = row.get(name)
    if isinstance(found, bool) or not isinstance(found, int | float) or not abs(found) <= LARGEST:
        raise UserError(f"{name} is {found!r}", place=where, value=found, expected="a number")
    return float(found)
