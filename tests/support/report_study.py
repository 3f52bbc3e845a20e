"""A made-up study in the paper's shape: its own numbers where it published them, smooth ones elsewhere."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from sftlab.analysis import statistics
from sftlab.analysis.accuracy import BucketAccuracy, PairedBucket
from sftlab.analysis.statistics import seed_of
from sftlab.studies.knowledge.report import published
from sftlab.studies.knowledge.results.answer_rows import (
    AnswerKindRow,
    MasteryAfterRow,
    TopicBaselineRow,
    TopicRow,
)
from sftlab.studies.knowledge.results.rows import (
    AccuracyRow,
    CellRow,
    CertaintyRow,
    ConcentrationRow,
    DistributionRow,
    DivergenceRow,
    DrawnRow,
    FateRow,
    MasteryRow,
    TrainingRow,
    UndoneRow,
    UpdateRow,
    accuracy_rows,
    paired_rows,
)
from sftlab.studies.knowledge.results.statistics import Answers, fill_tables
from sftlab.studies.knowledge.results.tables import Results, Variant

PERCENTS = (0.0, 1.0, 3.0, 5.0, 10.0, 20.0, 40.0, 60.0)
SPEC: dict[str, Any] = {
    "name": "paper-shape",
    "restore": {"percents": list(PERCENTS), "region": "layers", "order": "top", "seed": 0},
    "sft": {"batch_size": 8, "epochs": 1, "learning_rate": 1e-5, "schedule": "cosine"},
    "training_sets": {"buckets": [0, 1, 2, 3, 4], "sizes": [240, 1920], "seeds": [0]},
}


def paper_study(
    scale: int = 10,
    seeds: Sequence[int] = (0,),
    buckets: Sequence[int] = range(5),
    sizes: Sequence[int] = published.SIZES,
) -> Results:
    """5 buckets x 2 sizes x 8 percentages; the paper's test sets shrunk `scale` times."""
    return filled(paper_variant(scale, seeds, buckets, sizes))


def filled(variant: Variant, **changes: Any) -> Results:
    """A study of one variant, from answers that fit its accuracies; its intervals have few resamples."""
    study = Results(
        "paper-shape", "LLaMA-3-8B (published numbers)", variant.spec, variants=[variant], kind="study"
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(statistics, "RESAMPLES", 200)
        patch.setattr(statistics, "FLIPS", 5_000)
        return replace(fill_tables(study, answers_of(variant)), **changes)


def answers_of(variant: Variant) -> Answers:
    """Verdicts with the counts of the accuracy rows: models find the same questions hard, and differ a little."""
    rows: dict[tuple[str, float | None, str], list[AccuracyRow]] = {}
    for row in variant.accuracy:
        if row.bucket is not None:
            rows.setdefault((row.cell, row.percent, row.split), []).append(row)

    def answers(_: str, cell: str, percent: float, split: str) -> tuple[Any, Any]:
        found = rows[cell, percent, split]
        own = np.random.default_rng(seed_of(cell, percent, split))
        verdicts = []
        for row in found:
            order = np.argsort(np.arange(row.questions) + own.normal(0, 0.04 * row.questions, row.questions))
            right = np.zeros(row.questions, bool)
            right[order[: row.correct]] = True
            verdicts.append(right)
        return np.concatenate(verdicts), np.repeat([r.bucket for r in found], [r.questions for r in found])

    return answers


def with_scores(study: Results, change: Callable[[AccuracyRow], AccuracyRow]) -> Results:
    """The study with other accuracies, and all that follows from them; the counts follow the accuracies."""
    (variant,) = study.variants
    rows = [change(row) for row in variant.accuracy]
    rows = [replace(row, correct=round(row.accuracy * row.questions)) for row in rows]
    return filled(replace(variant, accuracy=rows))


def paper_variant(
    scale: int = 10,
    seeds: Sequence[int] = (0,),
    buckets: Sequence[int] = range(5),
    sizes: Sequence[int] = published.SIZES,
) -> Variant:
    """The tables of `paper_study`."""
    draw = random.Random(0)
    cells = [
        CellRow(f"bucket{b}-n{n}-s{s}", str(b), n, s, 5200.0 + 10 * b, n / 40)
        for b in buckets
        for n in sizes
        for s in seeds
    ]
    accuracy: list[AccuracyRow] = []
    for split in ("dev", "dev_ood", "test", "test_ood"):
        accuracy += accuracy_rows(None, None, split, _answers(split, 0.31, scale))
        for cell in cells:
            for percent in PERCENTS:
                target = published.ladder("test_ood" if split.endswith("ood") else "test", cell.size)
                mean = target[percent][int(cell.train_bucket)] + (0.004 * draw.gauss(0, 1))
                accuracy += accuracy_rows(cell, percent, split, _answers(split, mean, scale))
    for cell in cells:
        for percent, values in published.training_set(cell.size).items():
            bucket = int(cell.train_bucket)
            right = BucketAccuracy(bucket, cell.size, round(values[bucket] * cell.size))
            accuracy += accuracy_rows(cell, percent, "train_set", [right])
    return Variant(
        "restore",
        "restore",
        spec=SPEC,
        provenance={"commit": "0123456789abcdef", "python": "3.11.9", "time": "2025-01-01T00:00:00+00:00"},
        cells=cells,
        accuracy=accuracy,
        paired=_paired(accuracy, draw),
        fates=[row for cell in cells for row in _fates(cell, accuracy)],
        answer_kinds=_answer_kinds(accuracy),
        mastery_after=[
            MasteryAfterRow(cell.cell, percent, split, bucket, 8, bucket / 4, bucket / 5, 2, 0, 3, 1, 2, 2)
            for cell in cells
            for percent in (0.0, 20.0)
            for split in ("test", "test_ood")
            for bucket in range(5)
        ],
        topics=[
            TopicRow(row.cell, row.percent, row.split, "capital", row.questions, row.correct, 0.2)
            for row in accuracy
            if row.bucket is None and row.split in ("test", "test_ood")
        ],
        topic_baselines=[
            TopicBaselineRow(split, "capital", 900, "train", 700, "Paris", 0.1, 0.05)
            for split in ("test", "test_ood")
        ],
        divergence=[row for cell in cells for row in _divergence(cell)],
        concentration=[row for cell in cells for row in _concentration(cell)],
        distribution=[row for cell in cells for row in _distribution(cell)],
        undone=[row for cell in cells for row in _undone(cell)],
        updates=[row for cell in cells for row in _updates(cell)],
        mastery=_mastery(scale),
        certainty=[
            CertaintyRow(split, topic, bucket, 10, 0.05, 0.8, 0.9, 0.5)
            for split in ("train", "test")
            for topic in ("capital", "river")
            for bucket in range(5)
        ],
        drawn=[
            DrawnRow(cell.cell, topic, int(cell.train_bucket), facts)
            for cell in cells
            for topic, facts in (("capital", 24), ("river", cell.size - 24))
        ],
        training=[row for cell in cells for row in _training(cell, draw)],
    )


@contextmanager
def without_layout() -> Iterator[None]:
    """Figures are drawn, but not laid out, which takes as long again: for pages whose figures other tests look at."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("matplotlib.layout_engine.ConstrainedLayoutEngine.execute", lambda *_: None)
        yield


def bucket_accuracy(train_bucket: int, split: str, bucket: int) -> float:
    """Accuracy in [0, 1] on one bucket after training on 1,920 facts of `train_bucket` (Table 2)."""
    table = published.published()["accuracy_1920"]
    column = table["columns"].index(f"{split}-{bucket}")
    value: float = table["rows"][published.PAPER_MODEL][train_bucket][column][0]
    return value / 100


def _answers(split: str, mean: float, scale: int) -> list[BucketAccuracy]:
    """Counts in the paper's bucket sizes whose mean accuracy is about `mean`, in the profile of Table 2."""
    counts = published.published()["mastery_distribution"]["rows"]["LLaMA-3-8B"]
    questions = [n // scale for n in counts["test_ood" if split.endswith("ood") else "test"]]
    profile = [bucket_accuracy(2, "test", bucket) for bucket in range(5)]
    low, high = -20.0, 20.0
    for _ in range(60):
        middle = (low + high) / 2
        shares = [1 / (1 + math.exp(-(math.log(p / (1 - p)) + middle))) for p in profile]
        low, high = (middle, high) if sum(shares) / 5 < mean else (low, middle)
    return [
        BucketAccuracy(b, n, round(n * share))
        for b, (n, share) in enumerate(zip(questions, shares, strict=True))
    ]


def _paired(accuracy: Sequence[AccuracyRow], draw: random.Random) -> list[Any]:
    """Restored against tuned: the net change of the accuracy rows, with a few answers swapped both ways."""
    rows: list[Any] = []
    right = {(r.cell, r.percent, r.split, r.bucket): r for r in accuracy if r.split.startswith("test")}
    for (cell, percent, split, bucket), row in right.items():
        if percent and bucket == 0:
            buckets = []
            for b in range(5):
                now, tuned = right[cell, percent, split, b], right[cell, 0.0, split, b]
                swapped = min(draw.randrange(1, 5), now.correct, tuned.correct)
                net = now.correct - tuned.correct
                buckets.append(PairedBucket(b, row.questions, max(net, 0) + swapped, max(-net, 0) + swapped))
            rows += paired_rows(cell, percent, split, buckets)
    return rows


def _fates(cell: CellRow, accuracy: Sequence[AccuracyRow]) -> list[FateRow]:
    """Two topics that share the questions of a bucket: no more answers turn over than the accuracies show."""
    right = {(r.percent, r.split, r.bucket): r for r in accuracy if r.cell == cell.cell}
    rows = []
    for (percent, split, bucket), row in right.items():
        if percent and bucket is not None and split in ("test", "test_ood", "train_set"):
            before = right[0.0, split, bucket]
            undone = max(before.correct - row.correct, 0)
            recovered = max(row.correct - before.correct, 0)
            kept = before.correct - undone
            for topic, part in (("capital", lambda n: n // 2), ("river", lambda n: n - n // 2)):
                counts = (kept, undone, recovered, row.questions - kept - undone - recovered)
                rows.append(FateRow(cell.cell, percent, split, topic, bucket, *map(part, counts)))
    return rows


def _answer_kinds(accuracy: Sequence[AccuracyRow]) -> list[AnswerKindRow]:
    """Half of the wrong answers are another entity, a quarter is empty; of one topic."""
    rows = []
    for row in accuracy:
        if row.bucket is not None and row.split in ("test", "test_ood", "train_set"):
            wrong = row.questions - row.correct
            counts = (row.correct, wrong // 2, wrong // 4, wrong - wrong // 2 - wrong // 4)
            rows.append(AnswerKindRow(row.cell, row.percent, row.split, "capital", row.bucket, *counts))
    return rows


def _divergence(cell: CellRow) -> list[DivergenceRow]:
    at_0 = 0.35 + 0.12 * (4 - int(cell.train_bucket)) * (cell.size / 1920) + 0.0001 * cell.size
    return [DivergenceRow(cell.cell, p, 91, at_0 * (1 - p / 100)) for p in PERCENTS]


def _concentration(cell: CellRow) -> list[ConcentrationRow]:
    table = published.published()["update_concentration"]
    shares = table["by_train_size"][str(cell.size)][int(cell.train_bucket)]
    pairs = zip(table["top_share_percent"], shares, strict=True)
    return [ConcentrationRow(cell.cell, float(top), share / 100, 0.9 * share / 100) for top, share in pairs]


def _distribution(cell: CellRow) -> list[DistributionRow]:
    rows = []
    for percent in PERCENTS[1:]:
        for layer, share in enumerate(published.layer_shares()):
            rows.append(DistributionRow(cell.cell, percent, "layer", str(layer), share, 1 / 32))
        for name, share in published.module_shares().items():
            rows.append(DistributionRow(cell.cell, percent, "module", name, share, 0.9 * share))
    for name, share in published.weight_shares().items():
        rows.append(DistributionRow(cell.cell, 100.0, "module", name, share))
    return rows


def _undone(cell: CellRow) -> list[UndoneRow]:
    return [
        UndoneRow(cell.cell, p, p / 100, (p / 100) ** 0.25, p / 100, (p / 100) ** 0.75) for p in PERCENTS[1:]
    ]


def _updates(cell: CellRow) -> list[UpdateRow]:
    """Larger for facts that the base model knows less, and for more of them; of two layers and modules."""
    norm = (5 - int(cell.train_bucket)) * cell.size / 1920 + 0.01 * cell.set_seed
    parts = [("all", "all", 1.0), ("layer", "0", 0.6), ("layer", "1", 0.8), ("module", "attn.q", 0.6)]
    return [
        UpdateRow(cell.cell, kind, name, 1000, 0.9, 20 * part * norm, part * norm, 3 * norm, 0.01 * norm)
        for kind, name, part in [*parts, ("module", "mlp.up", 0.8)]
    ]


def _mastery(scale: int) -> list[MasteryRow]:
    counts = published.published()["mastery_distribution"]["rows"]["LLaMA-3-8B"]
    sources = {"train": "train", "dev": "test", "dev_ood": "test_ood", "test": "test", "test_ood": "test_ood"}
    rows = [
        MasteryRow(split, bucket, n // scale)
        for split, source in sources.items()
        for bucket, n in enumerate(counts[source])
    ]
    return [*rows, MasteryRow("train", None, 3, 3)]


def _training(cell: CellRow, draw: random.Random) -> list[TrainingRow]:
    steps = cell.size // 8
    return [
        TrainingRow(
            cell.cell,
            step,
            loss=0.6 + (4 - int(cell.train_bucket)) * 0.5 + 2 * math.exp(-step / 12) + 0.1 * draw.random(),
            learning_rate=1e-5 * (1 + math.cos(math.pi * step / steps)) / 2,
            gradient_norm=5 - int(cell.train_bucket) + 1 / step,
        )
        for step in range(1, steps + 1)
    ]
