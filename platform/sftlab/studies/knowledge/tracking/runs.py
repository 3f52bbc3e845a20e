"""From the result tables of a study or a sweep to the records that are logged: pure functions.

A trial is one fine-tuned model with its ladder. Its run holds the ladder as curves whose step is the restored
percentage, so that MLflow's charts lay the ladders of chosen trials over each other.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from sftlab.store.mirror import display_path
from sftlab.studies.knowledge.results.choice import metric_of
from sftlab.studies.knowledge.results.rows import (
    BEST,
    CHOSEN,
    CellRow,
    ChoiceRow,
    ComparisonRow,
    GroupRow,
)
from sftlab.studies.knowledge.results.tables import STUDY, Results, Variant
from sftlab.studies.knowledge.results.ties import ties
from sftlab.studies.knowledge.tracking.metrics import TRAIN_SET, metrics_by_model, tie_text, training_metrics
from sftlab.tracking.names import percent_text
from sftlab.tracking.records import (
    LadderModel,
    MetricRow,
    ParentRecord,
    TrackedModel,
    TrackedTable,
    TrialRecord,
    as_text,
    flat,
    metric_rows,
    provenance_tags,
    time_ms,
)

SETTINGS = ("learning_rate", "epochs", "batch_size")  # of fine-tuning, shown with every model
TEST_SPLITS = {"test": "in domain", "test_ood": "out of domain"}


def trial_records(
    results: Results, models: Mapping[str, Sequence[TrackedModel]], tables: Sequence[TrackedTable]
) -> list[TrialRecord]:
    """A record for every trial that has models, in the order of the variants and their cells.

    models: by variant; every model belongs to a cell of its variant.
    """
    records = []
    for variant in results.variants:
        ladders: dict[str, list[TrackedModel]] = {}
        for model in models.get(variant.name, ()):
            assert model.cell is not None and model.percent is not None, "the base model is logged apart"
            ladders.setdefault(model.cell, []).append(model)
        found = _Found.of(results, variant, models.get(variant.name, ()))
        for cell in variant.cells:
            if cell.cell in ladders:
                ladder = sorted(ladders[cell.cell], key=lambda model: model.percent or 0.0)
                records.append(_trial(results, variant, cell, ladder, found, tables))
    return records


def base_record(results: Results, base: TrackedModel, tables: Sequence[TrackedTable]) -> TrialRecord:
    """The base model's run: its accuracies, and how many facts it knows how well."""
    assert base.percent is None
    first = results.variants[0] if results.variants else Variant("", "")
    return TrialRecord(
        key=f"base/{base.id}",
        name=f"base · {results.model}",
        kind="base",
        params={results.kind: results.name, "model": results.model, "kind": "base"},
        tags=provenance_tags(base.provenance)
        | ({"sftlab.path": display_path(base.path)} if base.path else {}),
        metrics=metrics_by_model(first, [base])[None, None],
        tables=tables,
        end_ms=time_ms(base.provenance.get("time")),
    )


@dataclass(frozen=True)
class _Found:
    """What a variant's tables say of its models and cells."""

    metrics: Mapping[tuple[str | None, float | None], list[MetricRow]]
    training: Mapping[str, list[MetricRow]]
    choice: Mapping[str | None, ChoiceRow]

    @classmethod
    def of(cls, results: Results, variant: Variant, models: Sequence[TrackedModel]) -> _Found:
        training: dict[str, list[MetricRow]] = {}
        for (cell, _), rows in training_metrics(variant):
            training.setdefault(cell, []).extend(rows)
        mine = [row for row in results.choice if row.scope == "cell" and row.variant == variant.name]
        return cls(metrics_by_model(variant, models), training, {row.cell: row for row in mine})


def _trial(
    results: Results,
    variant: Variant,
    cell: CellRow,
    ladder: Sequence[TrackedModel],
    found: _Found,
    tables: Sequence[TrackedTable],
) -> TrialRecord:
    label = f"{cell.cell.replace('bucket', 'b')} · {variant.name}"
    shared = _shared_params(results, variant, cell)
    choice = found.choice.get(cell.cell)
    spec = variant.spec
    own = dict(flat("sft", spec.get("sft", {})))
    own |= dict(flat("restore", {k: v for k, v in spec.get("restore", {}).items() if k != "percents"}))
    times = [time for model in ladder if (time := time_ms(model.provenance.get("time"))) is not None]
    train_set = next((model.train_set for model in ladder if model.train_set), None)
    return TrialRecord(
        key=trial_key(variant.name, cell.cell, ladder[0]),
        name=label,
        kind="trial",
        params=shared | {key: as_text(value) for key, value in own.items()},
        tags={"sftlab.cell": cell.cell} | provenance_tags(ladder[0].provenance),
        # MLflow's comparison of runs begins with the metric that was logged first.
        metrics=[
            *_chosen_metrics(choice),
            *found.training.get(cell.cell, ()),
            *_concentration(variant, cell),
        ],
        tables=[*tables, train_set] if train_set else tables,
        models=[_model(model, label, shared, found) for model in ladder],
        end_ms=max(times, default=None),
        seconds=cell.seconds or 0.0,
    )


def _model(model: TrackedModel, label: str, shared: Mapping[str, str], found: _Found) -> LadderModel:
    percent = model.percent or 0.0
    state = f"{percent_text(percent)} %" if percent else "tuned"
    params = {**shared, "kind": model.kind, "percent": percent_text(percent), "artifact": model.id[:12]}
    return LadderModel(
        artifact=model.id,
        name=f"{label} {state}",
        kind=model.kind,
        params=params | {key: as_text(value) for key, value in model.params.items()},
        metrics=_ladder_metrics(found.metrics[model.cell, model.percent]),
        # Rounded up, so that only 0 % is at 0.
        step=math.ceil(percent),
        path=model.path,
    )


def _ladder_metrics(rows: Sequence[MetricRow]) -> list[MetricRow]:
    """All metrics of a model; those on its own training set belong to the run's curves alone.

    MLflow's table of models has columns for every data set, and no two trials share a training set. MLflow's comparison
    of models begins with the metric that was logged first: an accuracy.
    """
    ordered = sorted(rows, key=lambda row: not row.key.startswith("accuracy/"))
    return [replace(row, curve=True) if TRAIN_SET in row.key else row for row in ordered]


def _shared_params(results: Results, variant: Variant, cell: CellRow) -> dict[str, str]:
    """What distinguishes the models of a sweep, except the percentage."""
    params: dict[str, Any] = {
        results.kind: results.name,
        "model": results.model,
        "strategy": variant.strategy,
    }
    params |= {"variant": variant.name, "train_bucket": cell.train_bucket}
    params |= {"size": cell.size, "set_seed": cell.set_seed}
    sft = variant.spec.get("sft", {})
    params |= {f"sft.{key}": sft[key] for key in SETTINGS if sft.get(key) is not None}
    params |= dict(flat("strategy", {k: v for k, v in variant.settings.items() if k not in SETTINGS}))
    return {key: as_text(value) for key, value in params.items()}


def _chosen_metrics(row: ChoiceRow | None) -> list[MetricRow]:
    """The trial's own choice by the sweep's metric and what it does on test: the columns to compare trials by."""
    if row is None:
        return []
    chosen = {"dev": row.dev, "test": row.test, "test_ood": row.test_ood, "percent": row.percent}
    tuned = {"dev": row.dev_tuned, "test": row.test_tuned, "test_ood": row.test_ood_tuned}
    gained = {
        split: round(chosen[split] - tuned[split], 12)  # type: ignore[operator]
        for split in tuned
        if chosen[split] is not None and tuned[split] is not None
    }
    values = {f"chosen/{key}": value for key, value in chosen.items()}
    values |= {f"chosen/gain_{key}": value for key, value in gained.items()}
    return metric_rows(values | {f"tuned/{key}": value for key, value in tuned.items()})


def _concentration(variant: Variant, cell: CellRow) -> list[MetricRow]:
    rows = [row for row in variant.concentration if row.cell == cell.cell]
    return [
        MetricRow(m.key, m.value, math.ceil(row.top_percent), m.table)
        for row in rows
        for m in metric_rows({"weights/change_in_top_percent": row.share})
    ]


def parent_record(
    key: str,
    results: Results,
    trials: Sequence[TrialRecord],
    tables: Sequence[TrackedTable],
    report: Path | None,
) -> ParentRecord:
    """The parent run. What may change when a study or a sweep is extended is a metric or a tag, never a parameter."""
    best = results.recommended()
    models = sum(len(trial.models) for trial in trials)
    unit = "cells" if results.kind == STUDY else "trials"
    counts = {"variants": len(results.variants), unit: len(trials), "models": models}
    metrics = metric_rows({f"{results.kind}/{key}": value for key, value in counts.items()})
    common = [row for row in results.choice if row.scope == "common"]
    if len(common) == 1:
        metrics += _common_metrics(common[0])
    if best is not None:
        metrics += _recommended_metrics(results, best.choice)
    first = results.variants[0].provenance if results.variants else {}
    tags = {"sftlab.kind": results.kind, "sftlab.spec": json.dumps(results.spec, sort_keys=True, default=str)}
    return ParentRecord(
        key=key,
        name=results.name,
        params={results.kind: results.name, "model": results.model},
        tags=tags | provenance_tags(first),
        metrics=metrics,
        tables=tables,
        note=note(results, len(trials), models),
        report=report,
        best=None if best is None else "/".join([*best.model[:2], percent_text(best.percent)]),
        kind=results.kind,
    )


def trial_key(variant: str, cell: str, tuned: TrackedModel) -> str:
    """What a trial's run is found again by; `tuned` is the model at the foot of its ladder."""
    return f"{variant}/{cell}/{tuned.id}"


def parent_key(name: str, model_id: str, facts_id: str, spec: Mapping[str, Any]) -> str:
    """What makes two studies or sweeps the same parent run; `spec` leaves out the axes, which may grow."""
    text = json.dumps([name, model_id, facts_id, spec], sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()


def score_of(results: Results, choice: ChoiceRow, split: str, percent: float) -> GroupRow | None:
    """Mean-of-buckets score of a chosen group on a split at a percentage."""
    wanted = (choice.group, percent, split, None)
    return next((r for r in results.groups if (r.group, r.percent, r.split, r.bucket) == wanted), None)


def comparisons_of(results: Results, choice: ChoiceRow) -> list[ComparisonRow]:
    """The tests of a chosen group against its own tuned models, and against the best of the others."""
    return [
        row
        for row in results.comparisons
        if row.family in (CHOSEN, BEST) and (row.group, row.percent) == (choice.group, choice.percent)
    ]


def choice_text(choice: ChoiceRow) -> str:
    """`restore`, 10 %, on 100 facts of bucket 2."""
    variant, bucket, size = choice.group
    data = f"bucket {bucket}" if bucket.isdecimal() else bucket
    percent = f"{percent_text(choice.percent)} %" if choice.percent else "tuned model as it is"
    return f"`{variant}`, {percent}, on {size:,} facts of {data}"


def score_table(results: Results, choice: ChoiceRow) -> str:
    """Test scores of the chosen group compared with its tuned models, in percent, with intervals: Markdown."""
    lines = [
        "| test accuracy | chosen | 95 % interval | tuned | 95 % interval | questions x models |",
        "|---|---|---|---|---|---|",
    ]
    for split, words in TEST_SPLITS.items():
        chosen = score_of(results, choice, split, choice.percent)
        tuned = score_of(results, choice, split, 0.0)
        if chosen is None or tuned is None:
            continue
        scores = (chosen, tuned)
        cells = [part for row in scores for part in (f"{100 * row.mean:.1f}", interval(row.low, row.high))]
        lines.append(f"| {words} | {' | '.join(cells)} | {chosen.questions:,} x {chosen.seeds} |")
    return "\n".join(lines) if len(lines) > 2 else ""


def verdict_lines(results: Results, choice: ChoiceRow) -> list[str]:
    """A Markdown item for every test of the chosen group."""
    lines = []
    for row in comparisons_of(results, choice):
        other = f"{row.against_variant} {percent_text(row.against_percent)} %"
        if row.family == BEST:
            other += f" on {row.against_size:,} facts of `{row.against_bucket}`"
        lines.append(
            f"- {TEST_SPLITS.get(row.split, row.split)}, against {other}: {100 * row.difference:+.1f} points, "
            f"95 % interval {100 * row.low:+.1f} to {100 * row.high:+.1f}, {row.verdict} "
            + ("" if row.p_corrected is None else f" (corrected p {row.p_corrected:.2g})")
        )
    return lines


def note(results: Results, trials: int, models: int) -> str:
    """Description of the parent run, Markdown."""
    strategies = ", ".join(dict.fromkeys(variant.strategy for variant in results.variants))
    text = f"**{results.name}**: {results.model}, {trials:,} trials with {models:,} models; strategies: {strategies}."
    best, words = results.recommended(), metric_of(results.metric).words
    if best is not None:
        tie = tie_text(len(ties(results, best.choice)))
        text += f"\n\n**Recommended**, chosen on dev ({words}): {choice_text(best.choice)}.{tie}\n"
        text += f"\n{score_table(results, best.choice)}\n\n" + "\n".join(verdict_lines(results, best.choice))
        if best.choice.seeds:
            text += (
                f"\n\nThe model of the lowest seed is registered as [{results.name}](#/models/{results.name}), alias "
                "`champion`; its run below begins with a star."
            )
    return f"{text}\n\n{HOW_TO_READ.format(metric=words)}"


HOW_TO_READ = (
    "A run below is a trial: one fine-tuned model with its ladder, whose models are logged under it. Its name says "
    "the training set (`b2-n100-s0`: 100 facts of bucket 2, seed 0) and the strategy. `chosen/...` is the percentage "
    "that the trial's own dev score ({metric}) chooses and what it does on test, `chosen/gain_...` its difference "
    "to 0 %, `tuned/...` the values at 0 %: compare trials by these. All other accuracies are curves over the ladder "
    "with the percentage as step; tables show their last point. Accuracies are shares in [0, 1], means over the "
    "buckets of the base model's mastery, and by bucket. KL in nats. `weights/change_in_top_percent`: share of all "
    "relative change in the top step % of the weights."
)


def interval(low: float, high: float) -> str:
    return f"{100 * low:.1f} to {100 * high:.1f}"


def _common_metrics(row: ChoiceRow) -> list[MetricRow]:
    """What one percentage for all runs does."""
    fields = ("percent", "dev", "dev_tuned", "test", "test_tuned", "test_ood", "test_ood_tuned")
    return metric_rows({f"common/{key}": getattr(row, key) for key in fields})


def _recommended_metrics(results: Results, choice: ChoiceRow) -> list[MetricRow]:
    values: dict[str, float | None] = {"percent": choice.percent, "dev": choice.dev}
    values["dev_tuned"] = choice.dev_tuned
    for split in TEST_SPLITS:
        row = score_of(results, choice, split, choice.percent)
        if row is not None:
            values |= {split: row.mean, f"{split}_low": row.low, f"{split}_high": row.high}
        tuned = score_of(results, choice, split, 0.0)
        values[f"{split}_tuned"] = None if tuned is None else tuned.mean
    return metric_rows({f"recommended/{key}": value for key, value in values.items()})
