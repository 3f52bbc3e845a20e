"""From the results of a survey to the records that are logged: pure functions.

A child run is one fine-tuning run; its kept epochs are its logged models, and its metrics are curves over the epochs.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from sftlab.analysis.layers import on_grid, positions
from sftlab.studies.survey.champions import DEV, TEST, Scored, spreads
from sftlab.tracking.names import percent_text
from sftlab.tracking.records import (
    LadderModel,
    MetricRow,
    ParentRecord,
    TrackedTable,
    TrialRecord,
    as_text,
    flat,
    metric_rows,
    provenance_tags,
    rounded,
    time_ms,
)

POSITIONS = 5  # 0.1, 0.3, 0.5, 0.7 and 0.9
KIND = "survey"
LABELS = ("base", "family", "language", "data", "group", "method", "size", "epoch")
CURVE = "train/"
GROWS = ("bases", "data", "benchmarks", "runs", "root")  # fields of a survey that are no part of what it is


@dataclass(frozen=True)
class KeptModel:
    """A run after one of its epochs: the step that it is, its folder, and the relative change of each layer.

    An edit of such a model has no folder; percent: of the edit.
    """

    id: str
    epoch: int
    path: Path | None
    movement: npt.NDArray[np.float64] | None = None
    percent: float | None = None


@dataclass(frozen=True)
class TrackedRun:
    """One fine-tuning run, or a base model (without models), or edits of tuned models (with `edit`, their settings).

    labels: by the names of LABELS without the epoch. sft: its settings. perplexity: of its training set under the
    base, as `measures.perplexity_schema`. losses, rates: a value a step.
    """

    name: str
    labels: Mapping[str, Any]
    models: Sequence[KeptModel] = ()
    sft: Mapping[str, Any] = field(default_factory=dict)
    table: TrackedTable | None = None
    perplexity: Mapping[str, Any] = field(default_factory=dict)
    losses: Sequence[float] = ()
    rates: Sequence[float] = ()
    seconds: float = 0.0
    provenance: Mapping[str, str] = field(default_factory=dict)
    edit: Mapping[str, Any] = field(default_factory=dict)

    @property
    def base(self) -> str:
        return str(self.labels["base"])

    @property
    def key(self) -> str:
        """What the run is found again by: it stays when another epoch is kept."""
        return f"{self.name}/{self.models[-1].id}" if self.models else f"base/{self.name}"


@dataclass(frozen=True)
class TrackedSurvey:
    """A survey with all that is logged of it.

    key: what its parent run is found again by. champions: rows of `stages.champions.champions_schema`. edited: scores
    of edited models, which take no part in the choice of the best model and in the units of gains.
    """

    name: str
    key: str
    runs: Sequence[TrackedRun]
    scored: Sequence[Scored]
    champions: Sequence[Mapping[str, Any]]
    spec: Mapping[str, Any]
    tables: Sequence[TrackedTable] = ()
    report: Path | None = None
    edited: Sequence[Scored] = ()

    @property
    def trained(self) -> list[TrackedRun]:
        """The fine-tuning runs."""
        return [run for run in self.runs if run.models and not run.edit]


def survey_key(name: str, spec: Mapping[str, Any]) -> str:
    """What makes two surveys one parent run; bases, sets, benchmarks and runs may grow, and files may move."""
    kept = {key: value for key, value in spec.items() if key not in GROWS}
    return hashlib.sha256(json.dumps([name, kept], sort_keys=True, default=str).encode()).hexdigest()


def run_records(survey: TrackedSurvey) -> list[TrialRecord]:
    """A record for every base and every run, in their order."""
    metrics = metrics_by_model(survey.scored, survey.edited)
    return [
        _run_record(survey, run, metrics) if run.models else _base_record(survey, run, metrics)
        for run in survey.runs
    ]


def metrics_by_model(
    scored: Sequence[Scored], edited: Sequence[Scored] = ()
) -> dict[tuple[str, str], list[MetricRow]]:
    """Metrics by base and model, in per cent and points; gain_standardised: in `champions.spreads` of `scored`."""
    before = {(row.base, row.benchmark): row for row in scored if row.model == row.base}
    spread = {half: spreads(scored, half) for half in (None, DEV, TEST)}
    by_model: dict[tuple[str, str], list[Scored]] = {}
    for row in (*scored, *edited):
        by_model.setdefault((row.base, row.model), []).append(row)
    found = {}
    for at, rows in by_model.items():
        metrics = [
            metric
            for row in rows
            for metric in metric_rows(
                {f"score/{row.benchmark}": 100 * row.score, f"form/{row.benchmark}": 100 * row.in_form},
                row.benchmark,
            )
        ]
        if at[0] != at[1]:
            metrics += _gains(rows, before, spread)
        found[at] = metrics
    return found


def _gains(
    rows: Sequence[Scored],
    before: Mapping[tuple[str, str], Scored],
    spread: Mapping[str | None, Mapping[str, float]],
) -> list[MetricRow]:
    metrics: list[MetricRow] = []
    sums: dict[str, list[float]] = {"mean": [], DEV: [], TEST: []}
    for row in rows:
        first = before[row.base, row.benchmark]
        gain = row.score - first.score
        values: dict[str, float | None] = {f"gain/{row.benchmark}": 100 * gain}
        if row.benchmark in spread[None]:
            sums["mean"].append(gain / spread[None][row.benchmark])
            values[f"gain_standardised/{row.benchmark}"] = sums["mean"][-1]
        for half, after, start in ((DEV, row.dev, first.dev), (TEST, row.test, first.test)):
            if after is not None and start is not None and row.benchmark in spread[half]:
                sums[half].append((after - start) / spread[half][row.benchmark])
        metrics += metric_rows(values, row.benchmark)
    return metrics + metric_rows(
        {f"gain_standardised/{name}": float(np.mean(found)) for name, found in sums.items() if found}
    )


def _base_record(
    survey: TrackedSurvey, run: TrackedRun, metrics: Mapping[tuple[str, str], list[MetricRow]]
) -> TrialRecord:
    return TrialRecord(
        key=run.key,
        name=f"base · {run.name}",
        kind="base",
        params={KIND: survey.name, "kind": "base", **_texts(run.labels)},
        tags=_texts(run.labels) | provenance_tags(run.provenance),
        metrics=metrics[run.base, run.base],
        tables=survey.tables,
        end_ms=time_ms(run.provenance.get("time")),
    )


def _run_record(
    survey: TrackedSurvey, run: TrackedRun, metrics: Mapping[tuple[str, str], list[MetricRow]]
) -> TrialRecord:
    params = {KIND: survey.name, **_texts(run.labels)}
    own = {key: as_text(value) for key, value in (*flat("sft", run.sft), *flat("restore", run.edit))}
    last = run.models[-1].epoch
    return TrialRecord(
        key=run.key,
        name=run.name,
        kind="edited" if run.edit else "run",
        params=params | own,
        tags=_texts({**run.labels, "epoch": last}) | provenance_tags(run.provenance),
        # MLflow's comparison of runs begins with the metric that was logged first.
        metrics=[*_chosen(run, metrics), *_before_training(run), *_training(run)],
        tables=[*survey.tables, run.table] if run.table else survey.tables,
        models=[_logged(run, model, params, metrics[run.base, model.id]) for model in run.models],
        end_ms=time_ms(run.provenance.get("time")),
        seconds=run.seconds,
    )


def _logged(
    run: TrackedRun, model: KeptModel, shared: Mapping[str, str], metrics: Sequence[MetricRow]
) -> LadderModel:
    kind, state, step = "tuned", f"epoch {model.epoch}", model.epoch
    params = {**shared, "epoch": str(model.epoch), "artifact": model.id[:12]}
    if model.percent is not None:
        kind, params["percent"] = "restored", percent_text(model.percent)
        if len({one.epoch for one in run.models}) == 1:  # a ladder; rounded up, so that only 0 % is at 0
            state, step = f"{params['percent']} %", math.ceil(model.percent)
    return LadderModel(
        artifact=model.id,
        name=f"{run.name} {state}",
        kind=kind,
        params={**params, "kind": kind},
        metrics=[*metrics, *_movement(model)],
        step=step,
        path=model.path,
    )


def _chosen(run: TrackedRun, metrics: Mapping[tuple[str, str], list[MetricRow]]) -> list[MetricRow]:
    """The epoch that is best on dev, and what it does there and on test: what runs are compared by."""
    if run.edit:
        return []
    values = {
        model.epoch: {row.key: row.value for row in metrics[run.base, model.id]} for model in run.models
    }
    known = [epoch for epoch, found in values.items() if f"gain_standardised/{DEV}" in found]
    if not known:
        return []
    best = max(known, key=lambda epoch: values[epoch][f"gain_standardised/{DEV}"])
    chosen = {f"chosen/{half}": values[best].get(f"gain_standardised/{half}") for half in (DEV, TEST)}
    return metric_rows({**chosen, "chosen/epoch": best})


def _before_training(run: TrackedRun) -> list[MetricRow]:
    found = run.perplexity
    return metric_rows(
        {
            "perplexity/response": found.get("response"),
            "perplexity/full": found.get("full"),
            "bits_per_byte": found.get("bits_per_byte"),
        }
    )


def _training(run: TrackedRun) -> list[MetricRow]:
    """The curves over the steps of training."""
    curves = {f"{CURVE}loss": run.losses, f"{CURVE}learning_rate": run.rates}
    points = [
        MetricRow(key, rounded(value), step, curve=True)
        for key, values in curves.items()
        for step, value in enumerate(values, start=1)
        if math.isfinite(value)
    ]
    return points + metric_rows({f"{CURVE}seconds": run.seconds or None})


def _movement(model: KeptModel) -> list[MetricRow]:
    """Relative Frobenius change at places of the network, 0 the input and 1 the output."""
    if model.movement is None:
        return []
    at = on_grid(model.movement, POSITIONS)
    return metric_rows(
        {
            f"movement/position_{place:.1f}": float(value)
            for place, value in zip(positions(POSITIONS), at, strict=True)
        }
    )


def parent_record(survey: TrackedSurvey, note: str) -> ParentRecord:
    """The parent run. What may change when a survey grows is a metric or a tag, never a parameter."""
    runs = survey.trained
    counts = {
        "bases": sum(not run.models for run in survey.runs),
        "runs": len(runs),
        "models": sum(len(run.models) for run in runs),
        "benchmarks": len({row.benchmark for row in survey.scored}),
        "edited": sum(len(run.models) for run in survey.runs if run.edit),
    }
    values: dict[str, float | None] = {f"{KIND}/{name}": value for name, value in counts.items()}
    for row in survey.champions:
        for name in (DEV, TEST, "low", "high"):
            values[f"recommended_{row['base']}/{name}"] = row[name]
    tags = {"sftlab.kind": KIND, "sftlab.spec": json.dumps(survey.spec, sort_keys=True, default=str)}
    first = next((run.provenance for run in runs), {})
    return ParentRecord(
        key=survey.key,
        name=survey.name,
        params={KIND: survey.name},
        tags=tags | provenance_tags(first),
        metrics=metric_rows(values),
        tables=survey.tables,
        note=note,
        report=survey.report,
        best="/".join(str(row["model"]) for row in survey.champions) or None,
        kind=KIND,
    )


def _texts(values: Mapping[str, Any]) -> dict[str, str]:
    return {key: as_text(value) for key, value in values.items() if value is not None}
