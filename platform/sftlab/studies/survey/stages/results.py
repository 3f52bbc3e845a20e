"""Stage 6: the table of scores, from which `sftlab compare` computes everything else, and the forms of the answers."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from sftlab.store.tables import read_table
from sftlab.studies.survey.build import SurveyBuild
from sftlab.studies.survey.compare import csv_text
from sftlab.studies.survey.measures import FORMS, MOVEMENT, forms_schema, movement_rows_schema
from sftlab.studies.survey.plan import Model
from sftlab.studies.survey.stages.movement import read_movement
from sftlab.studies.survey.stages.questions import FILE as QUESTIONS
from sftlab.studies.survey.stages.scores import read_answers

if TYPE_CHECKING:
    import pyarrow as pa

SCORES = "scores.csv"
ABOUT = "about.json"
BASE = "base"


def build_results(build: SurveyBuild) -> None:
    """Write the scores of all models in per cent, the forms of answers, the changes of weights, and what names mean."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    scores: list[dict[str, Any]] = []
    forms: list[dict[str, Any]] = []
    moved: list[dict[str, Any]] = []
    for model in build.plan.models:
        for name, step in model.scores.items():
            row, answers = {**_run_key(model), "benchmark": name}, read_answers(build, step)
            scores.append({**row, "score": 100 * _mean(answers["score"].to_pylist())})
            forms.append({**row, **_form(answers)})
        if model.movement is not None:
            moved += [{**_run_key(model), **row} for row in read_movement(build, model).to_pylist()]
    folder = build.path(build.plan.results)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / SCORES).write_text(csv_text(scores), encoding="utf-8")
    pq.write_table(pa.Table.from_pylist(forms, schema=forms_schema()), folder / FORMS)
    pq.write_table(pa.Table.from_pylist(moved, schema=movement_rows_schema()), folder / MOVEMENT)
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


def _about(build: SurveyBuild) -> dict[str, Any]:
    """What `studies.survey.about.About` holds, from the survey's file and the questions."""
    from sftlab.measurements.benchmarks import question_schema

    plan, benchmarks = build.plan, {}
    for name, step in plan.questions.items():
        table = read_table(build.read(step, QUESTIONS), question_schema())
        benchmarks[name] = {"questions": table.num_rows, "main": True}
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
