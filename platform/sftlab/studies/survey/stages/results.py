"""Stage 9: the table of scores, from which `sftlab compare` computes everything else, and the forms of the answers."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from sftlab.analysis.perplexity import bits_per_byte, perplexity
from sftlab.measurements.rendered_likelihood import FULL, RESPONSE, chosen
from sftlab.store.record import Step
from sftlab.studies.survey.build import SurveyBuild
from sftlab.studies.survey.champions import DEV, TEST, dev_questions
from sftlab.studies.survey.compare import csv_text
from sftlab.studies.survey.described import described, mean_tokens
from sftlab.studies.survey.judged import read_judged
from sftlab.studies.survey.measures import (
    FORMS,
    MOVEMENT,
    PERPLEXITY,
    RESTORED,
    forms_schema,
    movement_rows_schema,
    perplexity_schema,
    restored_schema,
)
from sftlab.studies.survey.stages.champions import Halves
from sftlab.studies.survey.stages.measured import run_key, write_measured
from sftlab.studies.survey.stages.movement import read_movement
from sftlab.studies.survey.stages.requests import CHOICES
from sftlab.studies.survey.stages.scores import read_answers, read_likelihoods, read_questions
from sftlab.studies.survey.stages.similarity import write_similarity

if TYPE_CHECKING:
    import pyarrow as pa

SCORES = "scores.csv"
ABOUT = "about.json"


def build_results(build: SurveyBuild) -> None:
    """Write the scores of all models in per cent, what else was measured, the best models, and what names mean."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    scores: list[dict[str, Any]] = []
    forms: list[dict[str, Any]] = []
    moved: list[dict[str, Any]] = []
    labels = {name: labels_of(read_questions(build, name)) for name in build.plan.questions}
    halves = Halves(build)
    for model in build.plan.named:
        for name, step in model.scores.items():
            row, answers = {**run_key(model), "benchmark": name}, read_answers(build, step)
            if model.rung is None:
                halves.add(model, name, answers)
            scores.append({**row, "score": 100 * _mean(answers["score"].to_pylist())})
            forms.append(
                {
                    **row,
                    **form_of(answers.to_pylist()),
                    "tokens": tokens_of(answers.to_pylist()),
                    "right_by_likelihood": by_likelihood(build, step, labels[name]),
                }
            )
        if model.movement is not None:
            moved += [{**run_key(model), **row} for row in read_movement(build, model).to_pylist()]
    for name, judgments in read_judged(build.plan.spec.benchmarks.judged, build.plan.named).items():
        for model, found in judgments:
            row = {**run_key(model), "benchmark": name}
            scores.append({**row, "score": 100 * _mean(found)})
            forms.append({**row, **form_of(_as_answers(found)), "tokens": None, "right_by_likelihood": None})
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
    if build.plan.ladders:
        pq.write_table(
            pa.Table.from_pylist(restored_rows(build), schema=restored_schema()), folder / RESTORED
        )
    write_similarity(build, folder)
    write_measured(build, folder)
    questions = {name: read_questions(build, name).num_rows for name in build.plan.questions}
    about = described(build.plan, questions, mean_tokens(surprise))
    (folder / ABOUT).write_text(json.dumps(about.model_dump(exclude_none=True), indent=1), encoding="utf-8")
    build.commit(build.plan.results)


def restored_rows(build: SurveyBuild) -> list[dict[str, Any]]:
    """Scores of the restored models and of the tuned models that they come from, by half of the questions."""
    plan = build.plan
    questions = {name: read_questions(build, name) for name in plan.questions}
    labels = {name: labels_of(table) for name, table in questions.items()}
    dev = {name: dev_questions(table["question_id"].to_pylist()) for name, table in questions.items()}
    tuned = {model.name: model for model in plan.models if model.name in plan.ladders}
    rows = []
    for name, rungs in plan.ladders.items():
        for model in (tuned[name], *rungs):
            key = run_key(model) | {"percent": 0.0 if model.rung is None else model.rung.percent}
            for benchmark, step in model.scores.items():
                answers = read_answers(build, step).to_pylist()
                likeliest = chosen(read_likelihoods(build, step, CHOICES)) if labels[benchmark] else None
                for half in (DEV, TEST):
                    kept = [row for row in answers if (row["question_id"] in dev[benchmark]) == (half == DEV)]
                    if not kept:
                        continue
                    right = {
                        k: v for k, v in labels[benchmark].items() if (k in dev[benchmark]) == (half == DEV)
                    }
                    by_choice = None if likeliest is None else right_choices(likeliest, right)
                    found = {
                        **form_of(kept),
                        "tokens": tokens_of(kept),
                        "right_by_likelihood": by_choice,
                    }
                    rows.append({**key, "benchmark": benchmark, "half": half, **found})
    return rows


def _as_answers(judgments: Sequence[float | None]) -> list[dict[str, Any]]:
    """Judgments as answers: those that the judge gave are in the asked form."""
    return [{"score": given, "in_form": given is not None, "error": None} for given in judgments]


def _mean(scores: Sequence[float | None]) -> float:
    """A question that was not asked counts as wrong."""
    return sum(score or 0.0 for score in scores) / len(scores)


def form_of(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Share of answers in the asked form, and the score of these alone; an answer in another form counts as wrong."""
    kept = [row["score"] for row in rows if row["in_form"]]
    return {
        "questions": len(rows),
        "in_form": len(kept) / len(rows),
        "score_given_form": sum(kept) / len(kept) if kept else None,
        "errors": sum(row["error"] is not None for row in rows),
    }


def tokens_of(rows: Sequence[Mapping[str, Any]]) -> int:
    """The tokens that a model wrote in its answers."""
    return sum(row["tokens"] or 0 for row in rows)


def labels_of(questions: pa.Table) -> dict[str, int]:
    """By question that has choices, the place of the right one."""
    rows = zip(questions["question_id"].to_pylist(), questions["label"].to_pylist(), strict=True)
    return {name: label for name, label in rows if label is not None}


def by_likelihood(build: SurveyBuild, step: Step, labels: Mapping[str, int]) -> float | None:
    """The share of questions of which the right choice is the likeliest; None for a benchmark without choices."""
    if not labels:
        return None
    return right_choices(chosen(read_likelihoods(build, step, CHOICES)), labels)


def right_choices(likeliest: Mapping[str, int | None], labels: Mapping[str, int]) -> float | None:
    """The share of the labelled questions of which the right choice is the likeliest; None without any."""
    if not labels:
        return None
    return sum(likeliest.get(name) == label for name, label in labels.items()) / len(labels)


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
