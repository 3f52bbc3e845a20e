"""Asks one model the questions of one benchmark, with the prompts and verdicts of a survey (`sftlab ask`)."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import sqrt
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sftlab.datasets.benchmark_file import BenchmarkFileSpec, read_benchmark
from sftlab.datasets.spec import TemplateSpec
from sftlab.execution.progress import Progress
from sftlab.execution.runtime import Runtime
from sftlab.files import write_text
from sftlab.measurements.rendered_likelihood import choice_rows, chosen
from sftlab.measurements.spec import LikelihoodSpec
from sftlab.reporting.text import count, percent
from sftlab.studies.survey.one_model import measure, open_model
from sftlab.studies.survey.stages.results import form_of

if TYPE_CHECKING:
    from sftlab.inference.measurement import Measurement

ANSWERS, CHOICES = "answers", "choices"
SHOWN = 5  # wrong answers that are printed


@dataclass(frozen=True)
class Asked:
    """What was asked and answered: `summary` in numbers, `answers` one by one."""

    summary: Mapping[str, Any]
    answers: Sequence[Mapping[str, Any]]


def ask(
    folder: Path,
    file: BenchmarkFileSpec,
    template: TemplateSpec,
    runtime: Runtime,
    progress: Progress,
    dtype: str = "auto",
) -> Asked:
    """Ask and judge. Raises UserError naming the file and row of a question that is none, and a model that is none."""
    import pyarrow as pa

    from sftlab.measurements.benchmarks import BenchmarkAnswers, question_schema
    from sftlab.measurements.likelihood import LogLikelihoods

    questions = read_benchmark(file)
    _, made = open_model(folder, template, runtime)
    table = pa.Table.from_pylist(questions, schema=question_schema())
    wanted: dict[str, Measurement] = {ANSWERS: BenchmarkAnswers(table, template, file.max_tokens)}
    if choices := tuple(choice_rows(made, questions)):
        wanted[CHOICES] = LogLikelihoods(choices, LikelihoodSpec())
    found = measure(folder, wanted, runtime, progress, dtype)
    answers = found[ANSWERS].to_pylist()
    likeliest = chosen(found[CHOICES].to_pylist()) if CHOICES in found else {}
    rows = [
        {
            **answer,
            "question": row["question"],
            "accepted": row["accepted"],
            "likeliest": likeliest.get(row["question_id"]),
        }
        for answer, row in zip(answers, questions, strict=True)
    ]
    return Asked(summary_of(folder, file, template, questions, answers, likeliest), rows)


def summary_of(
    folder: Path,
    file: BenchmarkFileSpec,
    template: TemplateSpec,
    questions: Sequence[Mapping[str, Any]],
    answers: Sequence[Mapping[str, Any]],
    likeliest: Mapping[str, int | None],
) -> dict[str, Any]:
    """Score in [0, 1] with its standard error over questions, form, and the share of right likeliest choices."""
    scores = [row["score"] or 0.0 for row in answers]
    mean = sum(scores) / len(scores)
    labels = {row["question_id"]: row["label"] for row in questions if row["label"] is not None}
    right = sum(likeliest.get(name) == label for name, label in labels.items())
    spread = sum((score - mean) ** 2 for score in scores) / max(1, len(scores) - 1)
    return {
        "model": str(folder),
        "benchmark": file.source,
        "template": template if isinstance(template, str) else template.model_dump(),
        "score": mean,
        "standard_error": sqrt(spread / len(scores)) if len(scores) > 1 else None,
        **form_of(answers),
        "right_by_likelihood": right / len(labels) if labels and likeliest else None,
    }


def write_answers(found: Asked, path: Path) -> None:
    """Every answer as a JSON line."""
    write_text(path, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in found.answers))


def asked_text(found: Asked) -> str:
    """The numbers in lines, and the first wrong answers."""
    numbers = found.summary
    error = numbers["standard_error"]
    given = numbers["score_given_form"]
    spread = "" if error is None else f" (standard error {100 * error:.1f})"
    of_these = "" if given is None else f"; score of these {percent(given)}"
    lines = [
        f"{numbers['benchmark']}: {count(numbers['questions'], 'question')}",
        f"  score         {percent(numbers['score'])}{spread}",
        f"  in asked form {percent(numbers['in_form'])}{of_these}",
    ]
    if numbers["right_by_likelihood"] is not None:
        lines.append(
            f"  likeliest     {percent(numbers['right_by_likelihood'])} of the likeliest choices are right"
        )
    if numbers["errors"]:
        reason = next(row["error"] for row in found.answers if row["error"])
        lines.append(f"  not asked     {numbers['errors']:,}, which count as wrong (the first: {reason})")
    wrong = [row for row in found.answers if row["error"] is None and not row["score"]]
    for row in wrong[:SHOWN]:
        asked, answer = (" ".join(str(text).split())[:80] for text in (row["question"], row["answer"]))
        lines.append(
            f"  wrong: {asked!r} -> {answer!r}, expected {' or '.join(map(repr, row['accepted'][:3]))}"
        )
    return "\n".join(lines)
