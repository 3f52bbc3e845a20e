"""From the result tables of a study to the records that are logged: pure functions."""

from __future__ import annotations

import hashlib
import json
import math
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from sftlab.store.mirror import display_path
from sftlab.studies.knowledge.results.tables import BASE, CellRow, ChoiceRow, StudyResults
from sftlab.studies.knowledge.results.ties import study_ties
from sftlab.tracking.names import percent_text
from sftlab.tracking.records import (
    MetricRow,
    ModelRecord,
    StudyRecord,
    TrackedModel,
    TrackedTable,
    as_text,
    flat,
    json_text,
    metric_rows,
    provenance_tags,
    rounded,
    time_ms,
)

TRAIN_SET = "train_set"  # the split of StudyResults that is a cell's own training set
KL_TABLE = "test"


def study_key(results: StudyResults) -> str:
    """What makes two results the same study: name, model and spec, less the grid that may be extended."""
    spec = {key: value for key, value in results.spec.items() if key != "training_sets"}
    if "restore" in spec:
        spec["restore"] = {k: v for k, v in spec["restore"].items() if k != "percents"}
    text = json.dumps([results.name, results.model, spec], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def method_of(results: StudyResults) -> str | None:
    """The strategy that edits the tuned models in place of the restoration; None for that."""
    found = results.spec.get("restore", {}).get("method")
    return str(found) if found else None


def run_name(model: TrackedModel, cells: Mapping[str, CellRow], base: str, method: str | None = None) -> str:
    """Readable name, such as `bucket2 × 100 · restored 10% · seed 0` (100 training facts of bucket 2).

    `method` replaces "restored".

    What distinguishes models comes first: MLflow's tables show some 30 characters.
    """
    if model.cell is None or model.percent is None:
        return f"base · {base}"
    row = cells[model.cell]
    state = f"{method or 'restored'} {percent_text(model.percent)}%" if model.percent else "tuned"
    return f"{data_text(row)} · {state} · seed {row.set_seed}"


def data_text(row: CellRow) -> str:
    """`bucket2 × 100`: 100 training facts of bucket 2."""
    bucket = f"bucket{row.train_bucket}" if row.train_bucket.isdecimal() else row.train_bucket
    return f"{bucket} × {row.size:,}"


def study_record(
    results: StudyResults,
    models: Sequence[TrackedModel],
    tables: Sequence[TrackedTable],
    report: Path | None,
) -> StudyRecord:
    """The parent run. What may change when a study is extended is a metric or a tag, never a parameter."""
    recommended = next((row for row in results.choice if row.scope == "recommended"), None)
    metrics = metric_rows({"study/cells": len(results.cells), "study/models": len(models)})
    for row in results.choice:
        if row.scope in ("recommended", "common"):
            metrics += _choice_metrics(row)
    best = None
    if recommended is not None:
        wanted = (recommended.cell, recommended.percent)
        best = next((model.id for model in models if (model.cell, model.percent) == wanted), None)
        if best is None:
            raise ValueError(f"the recommended model {wanted} is not among the models to log")
    return StudyRecord(
        key=study_key(results),
        name=results.name,
        params={"study": results.name, "model": results.model},
        tags={"sftlab.kind": "study", "sftlab.spec": json_text(results.spec)}
        | provenance_tags(results.provenance),
        metrics=metrics,
        tables=tables,
        note=_note(results, recommended),
        report=report,
        best=best,
    )


def model_records(
    results: StudyResults, models: Sequence[TrackedModel], tables: Sequence[TrackedTable]
) -> list[ModelRecord]:
    """A record for every model, in their order."""
    cells = {row.cell: row for row in results.cells}
    metrics = metrics_by_model(results, models)
    return [
        ModelRecord(
            artifact=model.id,
            name=run_name(model, cells, results.model, method_of(results)),
            kind=model.kind,
            params=_params(results, model, cells),
            tags=provenance_tags(model.provenance)
            | ({"sftlab.path": display_path(model.path)} if model.path else {}),
            metrics=metrics[model.cell, model.percent],
            tables=[*tables, model.train_set] if model.train_set else tables,
            path=model.path,
            end_ms=time_ms(model.provenance.get("time")),
            seconds=(cells[model.cell].seconds or 0.0) if model.cell and not model.percent else 0.0,
        )
        for model in models
    ]


def _params(results: StudyResults, model: TrackedModel, cells: Mapping[str, CellRow]) -> dict[str, str]:
    params: dict[str, Any] = {"model": results.model, "kind": model.kind}
    if model.cell is not None and model.percent is not None:
        row = cells[model.cell]
        params |= {"cell": row.cell, "train_bucket": row.train_bucket, "size": row.size}
        params |= {"set_seed": row.set_seed, "percent": percent_text(model.percent)}
        params |= dict(flat("sft", results.spec.get("sft", {})))
    if model.kind == "restored":
        restore = results.spec.get("restore", {})
        params |= dict(flat("restore", {k: v for k, v in restore.items() if k != "percents"}))
    return {key: as_text(value) for key, value in (params | dict(model.params)).items()}


def metrics_by_model(
    results: StudyResults, models: Sequence[TrackedModel]
) -> Mapping[tuple[str | None, float | None], list[MetricRow]]:
    """Metrics by (cell, percent); shares in [0, 1], KL in nats."""
    train_sets = {model.cell: model.train_set.name for model in models if model.train_set}
    found: dict[tuple[str | None, float | None], list[MetricRow]] = defaultdict(list)
    for a in results.accuracy:
        cell = None if a.cell == BASE else a.cell
        table = train_sets.get(cell) if a.split == TRAIN_SET else a.split
        name = f"accuracy/{a.split}" if a.bucket is None else f"{a.split}_by_bucket/bucket_{a.bucket}"
        found[cell, a.percent] += metric_rows({name: a.accuracy}, table)
    changed: dict[tuple[str, float, str], list[int]] = defaultdict(lambda: [0, 0])
    for p in results.paired:
        pair = changed[p.cell, p.percent, p.split]
        pair[0] += p.gained
        pair[1] += p.lost
    for (cell, percent, split), (gained, lost) in changed.items():
        values = {f"answers_gained/{split}": gained, f"answers_lost/{split}": lost}
        found[cell, percent] += metric_rows(values, train_sets.get(cell) if split == TRAIN_SET else split)
    for d in results.divergence:
        found[d.cell, d.percent] += metric_rows({"kl/first_token": d.kl}, KL_TABLE)
    for c in results.concentration:
        found[c.cell, 0.0] += metric_rows({f"change/top_{percent_text(c.top_percent)}": c.share})
    for w in results.distribution:
        if w.kind == "module":
            found[w.cell, w.percent] += metric_rows({f"restored_weights/{w.name}": w.share})
    for m in results.mastery:
        part = "unscored" if m.bucket is None else f"bucket_{m.bucket}"
        found[None, None] += metric_rows({f"mastery_{m.split}/{part}": m.facts}, m.split)
    for key, rows in training_metrics(results):
        found[key] += rows
    return found


def training_metrics(results: StudyResults) -> Iterator[tuple[tuple[str, float], list[MetricRow]]]:
    last: dict[str, float] = {}
    for row in results.training:
        last[row.cell] = row.loss
        curve = {"train/loss": row.loss, "train/learning_rate": row.learning_rate}
        points = [
            MetricRow(k, rounded(v), row.step, curve=True) for k, v in curve.items() if math.isfinite(v)
        ]
        yield (row.cell, 0.0), points
    for cell in results.cells:
        summary = {
            "train/final_loss": last.get(cell.cell),
            "train/tokens_per_second": cell.tokens_per_second,
            "train/seconds": cell.seconds,
        }
        yield (cell.cell, 0.0), metric_rows(summary)


def _choice_metrics(row: ChoiceRow) -> list[MetricRow]:
    values = {
        "percent": row.percent,
        "dev": row.dev,
        "dev_tuned": row.dev_tuned,
        "test": row.test,
        "test_tuned": row.test_tuned,
        "test_ood": row.test_ood,
        "test_ood_tuned": row.test_ood_tuned,
    }
    return metric_rows({f"{row.scope}/{key}": value for key, value in values.items()})


def _note(results: StudyResults, recommended: ChoiceRow | None) -> str:
    """Description of the parent run, Markdown."""
    text = (
        f"**{results.name}**: {results.model}, {len(results.cells)} fine-tuning runs with their restoration "
        "ladders, a child run a model. Accuracies are shares in [0, 1], means over the buckets of the base "
        "model's mastery, and by bucket. KL in nats. `change/top_k`: share of all relative "
        "change in the top k% of the weights."
    )
    if recommended is None:
        return text
    doing = f"{method} at {{}}% on" if (method := method_of(results)) else "restore {}% of"
    what = doing.format(percent_text(recommended.percent)) if recommended.percent else "keep, as it is tuned,"
    numbers = [
        f"{name} {100 * value:.1f}% (tuned: {100 * tuned:.1f}%)"
        for name, value, tuned in (
            ("dev", recommended.dev, recommended.dev_tuned),
            ("test", recommended.test, recommended.test_tuned),
            ("test out of domain", recommended.test_ood, recommended.test_ood_tuned),
        )
        if value is not None and tuned is not None
    ]
    tie = tie_text(len(study_ties(results.accuracy, recommended)))
    return f"{text}\n\nRecommended, chosen on dev: {what} `{recommended.cell}`. Accuracy: {', '.join(numbers)}.{tie}"


def tie_text(others: int) -> str:
    """What is added to a recommendation where others have the same dev score; '' where none has."""
    if not others:
        return ""
    have = "1 other has" if others == 1 else f"{others:,} others have"
    return f" {have} the same dev score: dev makes no choice between them, and the first is named."
