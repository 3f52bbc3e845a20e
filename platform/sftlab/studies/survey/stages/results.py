"""Stage 6: the table of scores, from which `sftlab compare` computes everything else, and the forms of the answers."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from sftlab.analysis.perplexity import bits_per_byte, perplexity
from sftlab.measurements.rendered_likelihood import FULL, RESPONSE, chosen
from sftlab.store.record import Step
from sftlab.studies.survey.build import SurveyBuild
from sftlab.studies.survey.compare import csv_text
from sftlab.studies.survey.measures import (
    FORMS,
    MOVEMENT,
    PERPLEXITY,
    forms_schema,
    movement_rows_schema,
    perplexity_schema,
)
from sftlab.studies.survey.plan import Model
from sftlab.studies.survey.stages.champions import Halves
from sftlab.studies.survey.stages.movement import read_movement
from sftlab.studies.survey.stages.scores import CHOICES, read_answers, read_likelihoods, read_questions

if TYPE_CHECKING:
    import pyarrow as pa

SCORES = "scores.csv"
ABOUT = "about.json"
BASE = "base"


def build_results(build: SurveyBuild) -> None:
    """Write the scores of all models in per cent, what else was measured, the best models, and what names mean."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    scores: list[dict[str, Any]] = []
    forms: list[dict[str, Any]] = []
    moved: list[dict[str, Any]] = []
    labels = {name: labels_of(read_questions(build, name)) for name in build.plan.questions}
    halves = Halves(build)
    for model in build.plan.models:
        for name, step in model.scores.items():
            row, answers = {**_run_key(model), "benchmark": name}, read_answers(build, step)
            halves.add(model, name, answers)
            scores.append({**row, "score": 100 * _mean(answers["score"].to_pylist())})
            forms.append(
                {**row, **_form(answers), "right_by_likelihood": by_likelihood(build, step, labels[name])}
            )
        if model.movement is not None:
            moved += [{**_run_key(model), **row} for row in read_movement(build, model).to_pylist()]
    surprise = [
        {"model": base, "data": name, "size": size, **perplexities(read_likelihoods(build, step))}
        for base, sets in build.plan.perplexities.items()
        for (name, size), step in sets.items()
    ]
    folder = build.path(build.plan.results)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / SCORES).write_text(csv_text(scores), encoding="utf-8")
    pq.write_table(pa.Table.from_pylist(forms, schema=forms_schema()), folder / FORMS)
    pq.write_table(pa.Table.from_pylist(moved, schema=movement_rows_schema()), folder / MOVEMENT)
    pq.write_table(pa.Table.from_pylist(surprise, schema=perplexity_schema()), folder / PERPLEXITY)
    halves.write(folder)
    (folder / ABOUT).write_text(json.dumps(_about(build), indent=1), encoding="utf-8")
    build.commit(build.plan.results)


def _run_key(model: Model) -> dict[str, Any]:
    run = model.run
    if run is None:
        return {
            "model": model.base,
            "data": BASE,
            "method": "",
            "size": None,
            "epoch": None,
            "schedule": "",
        }
    return {
        "model": model.base,
        "data": run.data,
        "method": run.method,
        "size": run.size,
        "epoch": model.epoch,
        "schedule": run.sft.schedule,
    }


def _mean(scores: Sequence[float | None]) -> float:
    """A question that was not asked counts as wrong."""
    return sum(score or 0.0 for score in scores) / len(scores)


def _form(answers: pa.Table) -> dict[str, Any]:
    """Share of answers in the asked form, and the score of these alone; an answer in another form counts as wrong."""
    rows = answers.to_pylist()
    kept = [row["score"] for row in rows if row["in_form"]]
    return {
        "questions": len(rows),
        "in_form": len(kept) / len(rows),
        "score_given_form": sum(kept) / len(kept) if kept else None,
        "errors": sum(row["error"] is not None for row in rows),
    }


def labels_of(questions: pa.Table) -> dict[str, int]:
    """By question that has choices, the place of the right one."""
    rows = zip(questions["question_id"].to_pylist(), questions["label"].to_pylist(), strict=True)
    return {name: label for name, label in rows if label is not None}


def by_likelihood(build: SurveyBuild, step: Step, labels: Mapping[str, int]) -> float | None:
    """The share of questions of which the right choice is the likeliest; None for a benchmark without choices."""
    if not labels:
        return None
    found = chosen(read_likelihoods(build, step, CHOICES))
    return sum(found.get(name) == label for name, label in labels.items()) / len(labels)


def perplexities(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Perplexity of responses and of whole texts, bits per byte of responses, and tokens of a response on average.

    Rows that could not be scored are counted in `errors` and left out; a number without rows is None.
    """
    kept = {
        kind: [row for row in rows if row["error"] is None and row["key"].startswith(f"{kind}/")]
        for kind in (RESPONSE, FULL)
    }
    responses, whole = kept[RESPONSE], kept[FULL]
    sums = [row["log_likelihood"] for row in responses]
    tokens = [row["tokens"] for row in responses]
    return {
        "response": perplexity(sums, tokens) if responses else None,
        "full": perplexity([row["log_likelihood"] for row in whole], [row["tokens"] for row in whole])
        if whole
        else None,
        "bits_per_byte": bits_per_byte(sums, [row["bytes"] for row in responses]) if responses else None,
        "tokens": sum(tokens) / len(tokens) if tokens else None,
        "errors": sum(row["error"] is not None for row in rows),
    }


def _about(build: SurveyBuild) -> dict[str, Any]:
    """What `studies.survey.about.About` holds, from the survey's file and the questions."""
    plan = build.plan
    benchmarks = {
        name: {"questions": read_questions(build, name).num_rows, "main": True} for name in plan.questions
    }
    return {
        "models": {
            name: {"family": plan.family(name), "language": plan.language(name)}
            for name in plan.spec.bases.names
        },
        "data": {name: {} for name in plan.spec.data.names},
        "benchmarks": benchmarks,
        "mixture": "all",
        "without": "all-",
    }
