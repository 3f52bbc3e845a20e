"""From the tables of a variant to the metrics of its models: pure functions."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence

from sftlab.analysis.answer_kinds import WRONG, Kinds, together
from sftlab.studies.knowledge.results.answer_rows import MasteryAfterRow, TopicRow, mean_correlation
from sftlab.studies.knowledge.results.rows import BASE
from sftlab.studies.knowledge.results.tables import Variant
from sftlab.tracking.records import MetricRow, TrackedModel, metric_rows, rounded

TRAIN_SET = "train_set"  # the split that is a cell's own training set
KL_TABLE = "test"


def metrics_by_model(
    variant: Variant, models: Sequence[TrackedModel]
) -> Mapping[tuple[str | None, float | None], list[MetricRow]]:
    """Metrics by (cell, percent), all of which are logged; shares in [0, 1], KL in nats."""
    train_sets = {model.cell: model.train_set.name for model in models if model.train_set}
    found: dict[tuple[str | None, float | None], list[MetricRow]] = defaultdict(list)
    for a in variant.accuracy:
        cell = None if a.cell == BASE else a.cell
        table = train_sets.get(cell) if a.split == TRAIN_SET else a.split
        name = f"accuracy/{a.split}" if a.bucket is None else f"{a.split}_by_bucket/bucket_{a.bucket}"
        found[cell, a.percent] += metric_rows({name: a.accuracy}, table)
    changed: dict[tuple[str, float, str], list[int]] = defaultdict(lambda: [0, 0])
    for p in variant.paired:
        pair = changed[p.cell, p.percent, p.split]
        pair[0] += p.gained
        pair[1] += p.lost
    for (cell, percent, split), (gained, lost) in changed.items():
        values = {f"answers_gained/{split}": gained, f"answers_lost/{split}": lost}
        found[cell, percent] += metric_rows(values, train_sets.get(cell) if split == TRAIN_SET else split)
    for key, rows in answer_metrics(variant, train_sets):
        found[key] += rows
    for d in variant.divergence:
        found[d.cell, d.percent] += metric_rows({"kl/first_token": d.kl}, KL_TABLE)
    for u in variant.updates:
        if u.kind == "all":
            sizes = {"l1": u.l1, "l2": u.l2, "mean_relative": u.relative, "changed": u.changed}
            found[u.cell, 0.0] += metric_rows({f"update/{name}": size for name, size in sizes.items()})
        elif u.relative_l2 is not None:
            found[u.cell, 0.0] += metric_rows({f"update_by_{u.kind}/{u.name}": u.relative_l2})
    for w in variant.distribution:
        if w.kind == "module":
            found[w.cell, w.percent] += metric_rows({f"restored_weights/{w.name}": w.share})
    for shot in variant.few_shot:
        whole = f"few_shot/{shot.split}"
        name = whole if shot.bucket is None else f"few_shot_{shot.split}_by_bucket/bucket_{shot.bucket}"
        found[None, None] += metric_rows({name: shot.accuracy}, shot.split)
    for key, rows in gradient_metrics(variant):
        found[key] += rows
    for m in variant.mastery:
        part = "unscored" if m.bucket is None else f"bucket_{m.bucket}"
        found[None, None] += metric_rows({f"mastery_{m.split}/{part}": m.facts}, m.split)
    return found


def answer_metrics(
    variant: Variant, train_sets: Mapping[str | None, str]
) -> Iterator[tuple[tuple[str | None, float | None], list[MetricRow]]]:
    """Kinds of wrong answers; what the answers owe to the frequency of objects, and the baselines of topics.

    train_sets: name of the training set by cell.
    """
    kinds: dict[tuple[str, float | None, str], list[Kinds]] = defaultdict(list)
    for row in variant.answer_kinds:
        kinds[row.cell, row.percent, row.split].append(row.kinds)
    for (cell, percent, split), parts in kinds.items():
        whole, model = together(parts), None if cell == BASE else cell
        values = {f"wrong_answers_{split}/{kind}": getattr(whole, kind) for kind in WRONG}
        yield (model, percent), metric_rows(values, train_sets.get(model) if split == TRAIN_SET else split)
    topics: dict[tuple[str, float | None, str], list[TopicRow]] = defaultdict(list)
    for topic in variant.topics:
        topics[topic.cell, topic.percent, topic.split].append(topic)
    for (cell, percent, split), of_model in topics.items():
        value = {f"frequency_correlation/{split}": mean_correlation(of_model)}
        yield (None if cell == BASE else cell, percent), metric_rows(value, split)
    after: dict[tuple[str, float, str], list[MasteryAfterRow]] = defaultdict(list)
    for scored in variant.mastery_after:
        after[scored.cell, scored.percent, scored.split].append(scored)
    for (cell, percent, split), rows in after.items():
        facts = sum(row.facts for row in rows)
        values = {
            f"mastery_after_{split}/mean_r": sum(row.facts * row.r for row in rows) / facts,
            f"mastery_after_{split}/wrong_known": sum(row.wrong_known for row in rows),
            f"mastery_after_{split}/wrong_unknown": sum(row.wrong_unknown for row in rows),
        }
        yield (cell, percent), metric_rows(values, split)
    for split in dict.fromkeys(row.split for row in variant.topic_baselines):
        found = [row for row in variant.topic_baselines if row.split == split]
        questions = sum(row.questions for row in found)
        values = {
            f"baselines_{split}/{kind}": sum(
                row.questions * getattr(row, f"{kind}_accuracy") for row in found
            )
            / questions
            for kind in ("majority", "frequency")
        }
        yield (None, None), metric_rows(values, split)


def gradient_metrics(
    variant: Variant,
) -> Iterator[tuple[tuple[str | None, float | None], list[MetricRow]]]:
    """Gradients of facts over all parameters: of the base model by bucket, on the restored weights, as predictors."""
    for row in variant.gradients:
        if row.kind == "all":
            values = {"norm": row.norm, "cosine": row.cosine}
            named = {f"gradients_{name}/bucket_{row.bucket}": value for name, value in values.items()}
            yield (None, None), metric_rows(named, "test")
    for share in variant.restored_gradients:
        if share.kind == "all":
            named = {f"gradients_restored/bucket_{share.bucket}": share.share}
            yield (share.cell, share.percent), metric_rows(named, "test")
    for lost in variant.forgetting:
        named = {f"forgetting_{lost.split}/{lost.predictor}": lost.auc}
        yield (lost.cell, 0.0), metric_rows(named, lost.split)


def training_metrics(variant: Variant) -> Iterator[tuple[tuple[str, float], list[MetricRow]]]:
    last: dict[str, float] = {}
    for row in variant.training:
        last[row.cell] = row.loss
        curve = {"train/loss": row.loss, "train/learning_rate": row.learning_rate}
        if row.gradient_norm is not None:
            curve["train/gradient_norm"] = row.gradient_norm
        points = [
            MetricRow(k, rounded(v), row.step, curve=True) for k, v in curve.items() if math.isfinite(v)
        ]
        yield (row.cell, 0.0), points
    for cell in variant.cells:
        summary = {
            "train/final_loss": last.get(cell.cell),
            "train/tokens_per_second": cell.tokens_per_second,
            "train/seconds": cell.seconds,
        }
        yield (cell.cell, 0.0), metric_rows(summary)


def tie_text(others: int) -> str:
    """What is added to a recommendation where others have the same dev score; '' where none has."""
    if not others:
        return ""
    have = "1 other has" if others == 1 else f"{others:,} others have"
    return f" {have} the same dev score: dev makes no choice between them, and the first is named."
