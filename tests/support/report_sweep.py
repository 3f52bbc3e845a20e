"""A made-up sweep in the paper's shape: answers are drawn first, and every table comes from them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from statistics import NormalDist

import numpy as np
import numpy.typing as npt
import pytest

from sftlab.analysis import statistics
from sftlab.analysis.accuracy import BucketAccuracy, PairedBucket
from sftlab.analysis.statistics import seed_of
from sftlab.studies.knowledge.report import published
from sftlab.studies.knowledge.results.rows import AccuracyRow, CellRow, PairedRow, accuracy_rows, paired_rows
from sftlab.studies.knowledge.results.statistics import fill_tables
from sftlab.studies.knowledge.results.tables import Results, Variant
from sftlab.sweeps.times import TimeRow
from tests.support.report_study import SPEC, bucket_accuracy, paper_variant

PERCENTS = (0.0, 1.0, 3.0, 5.0, 10.0, 20.0, 40.0, 60.0)
QUESTIONS = {"dev": 24, "dev_ood": 20, "test": 48, "test_ood": 40}  # of each bucket
Answer = tuple[npt.NDArray[np.bool_], npt.NDArray[np.int64]]


@dataclass
class MadeUp:
    """Variants, and the answers of all their models."""

    variants: list[Variant] = field(default_factory=list)
    given: dict[tuple[str, str, float, str], Answer] = field(default_factory=dict)

    def answers(self, variant: str, cell: str, percent: float, split: str) -> Answer:
        return self.given[variant, cell, percent, split]

    def summarise(self, reference: str | None = None) -> Results:
        times = [
            TimeRow(f"trial-{n}", stage, seconds, queued, hits)
            for n in range(3)
            for stage, seconds, queued, hits in (
                ("tuned", 21.5, 3.0, 1),
                ("evaluation", 64.0, 12.5, 4),
                ("report", 2.0, 0.0, 0),
            )
        ]
        spec = {"base": SPEC, "axes": {"sizes": [240, 1920], "seeds": [0, 1, 2]}}
        made = Results(
            "made-up",
            "LLaMA-3-8B (published numbers)",
            spec,
            variants=self.variants,
            times=times,
            reference=reference,
        )
        return fill_tables(made, self.answers)

    def summarise_quickly(self) -> Results:
        """The same with fewer resamples: where pages are looked at, and no interval's last digits."""
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(statistics, "RESAMPLES", 200)
            patch.setattr(statistics, "FLIPS", 5_000)
            return self.summarise()


def made_up_sweep(
    strategies: Sequence[str] = ("restore", "wise-ft", "l2-sp"),
    buckets: Sequence[str] = ("0", "1", "2", "3", "4"),
    sizes: Sequence[int] = published.SIZES,
    seeds: Sequence[int] = (0, 1, 2),
    percents: Sequence[float] = PERCENTS,
) -> MadeUp:
    """Each strategy a variant; 'restore:0-3' is one with a range of layers, of 0 % and 100 %."""
    sweep = MadeUp()
    for strategy in strategies:
        add_variant(sweep, strategy, buckets, sizes, seeds, percents)
    return sweep


def add_variant(
    sweep: MadeUp,
    strategy: str,
    buckets: Sequence[str],
    sizes: Sequence[int],
    seeds: Sequence[int],
    percents: Sequence[float],
) -> None:
    kind, _, layers = strategy.partition(":")
    settings: dict[str, object] = {"l2-sp": {"l2_sp": 0.01}, "lora": {"rank": 8}}.get(kind, {})
    settings |= {"layers": layers} if layers else {}
    ladder = (0.0, 100.0) if layers else (0.0,) if kind in ("l2-sp", "lora", "mixed") else tuple(percents)
    of = ("mixed",) if kind == "mixed" else tuple(buckets)
    cells = [
        CellRow(f"bucket{b}-n{n}-s{s}", b, n, s, 5200.0, n / 40) for b in of for n in sizes for s in seeds
    ]
    accuracy: list[AccuracyRow] = []
    paired: list[PairedRow] = []
    for split in (*QUESTIONS, "train_set"):
        if split != "train_set":
            accuracy += accuracy_rows(None, None, split, counts(*drawn(split, 0.31, "base", 0.0)))
        for cell in cells:
            tuned = None
            for percent in ladder:
                mean = target(kind, layers, cell, percent, split)
                right, strata = answer = drawn(split, mean, f"{cell.cell}-{_training(kind)}", percent, cell)
                sweep.given[strategy, cell.cell, percent, split] = answer
                accuracy += accuracy_rows(cell, percent, split, counts(right, strata))
                if percent == 0.0:
                    tuned = right
                elif tuned is not None and split != "train_set":
                    paired += paired_rows(cell.cell, percent, split, pairs(tuned, right, strata))
    plain = [b for b in of if b.isdecimal()]
    shape = (
        paper_variant(seeds=seeds, buckets=[int(b) for b in plain], sizes=published.SIZES) if plain else None
    )
    names = {cell.cell for cell in cells}
    results = Variant(
        strategy,
        kind,
        settings,
        spec=SPEC,
        provenance={"commit": "0123456789abcdef"},
        cells=cells,
        accuracy=accuracy,
        paired=paired,
    )
    if shape is not None:
        factor = 0.6 if kind == "l2-sp" else 1.0
        results = replace(
            results,
            divergence=[
                replace(r, kl=r.kl * factor * (1 + 0.03 * int(r.cell[-1])))
                for r in shape.divergence
                if r.cell in names and r.percent in ladder
            ],
            concentration=[r for r in shape.concentration if r.cell in names],
            distribution=[r for r in shape.distribution if r.cell in names],
            undone=[r for r in shape.undone if r.cell in names],
            mastery=shape.mastery,
            training=[r for r in shape.training if r.cell in names],
        )
    sweep.variants.append(results)


def target(kind: str, layers: str, cell: CellRow, percent: float, split: str) -> float:
    """The mean accuracy that a model is drawn for."""
    size = min(published.SIZES, key=lambda s: abs(s - cell.size))
    b = int(cell.train_bucket) if cell.train_bucket.isdecimal() else 2
    if split == "train_set":
        table = published.training_set(size)
        return table[max(p for p in table if p <= percent)][b]
    table = published.ladder("test_ood" if split.endswith("ood") else "test", size)
    if layers:
        part = int(layers.split("-")[0]) // 4
        rows = published.published()["layer_restoration"]["rows"]
        return float(rows[b][part]) / 100 if percent else table[0.0][b]
    if kind == "wise-ft":
        return table[0.0][b] + 0.05 * math.sin(math.pi * percent / 60)
    return table[percent][b] + {"l2-sp": 0.035, "lora": -0.02, "mixed": -0.01}.get(kind, 0.0)


def drawn(split: str, mean: float, model: str, percent: float, cell: CellRow | None = None) -> Answer:
    """Answers of one model: questions have a difficulty, models of one training set a taste in common."""
    if split == "train_set":
        assert cell is not None
        of_bucket = int(cell.train_bucket) if cell.train_bucket.isdecimal() else None
        n = min(cell.size, 120)
        strata = np.arange(n) % 5 if of_bucket is None else np.full(n, of_bucket)
        shares = dict.fromkeys(range(5), mean)
    else:
        strata = np.repeat(np.arange(5), QUESTIONS[split])
        shares = dict(enumerate(profile(mean)))
    common = f"{split}-{model}" if split == "train_set" else split
    parts = [
        weight * np.random.default_rng(seed_of(*names)).standard_normal(strata.size)
        for weight, names in ((0.8, (common,)), (0.5, (split, model)), (0.2, (split, model, percent)))
    ]
    scale = math.sqrt(0.8**2 + 0.5**2 + 0.2**2)
    limits = {bucket: scale * _normal_point(share) for bucket, share in shares.items()}
    return sum(parts) < np.array([limits[int(bucket)] for bucket in strata]), strata


@cache
def profile(mean: float) -> list[float]:
    """Shares of the five buckets with the given mean, in the profile of Table 2."""
    shares = [bucket_accuracy(2, "test", bucket) for bucket in range(5)]
    low, high = -20.0, 20.0
    moved = shares
    for _ in range(50):
        middle = (low + high) / 2
        moved = [1 / (1 + math.exp(-(math.log(p / (1 - p)) + middle))) for p in shares]
        low, high = (middle, high) if sum(moved) / 5 < mean else (low, middle)
    return moved


def counts(right: npt.NDArray[np.bool_], strata: npt.NDArray[np.int64]) -> list[BucketAccuracy]:
    return [BucketAccuracy(b, int((strata == b).sum()), int(right[strata == b].sum())) for b in range(5)]


def pairs(
    tuned: npt.NDArray[np.bool_], restored: npt.NDArray[np.bool_], strata: npt.NDArray[np.int64]
) -> list[PairedBucket]:
    return [
        PairedBucket(
            b,
            int((strata == b).sum()),
            int((restored & ~tuned)[strata == b].sum()),
            int((tuned & ~restored)[strata == b].sum()),
        )
        for b in range(5)
    ]


def _training(kind: str) -> str:
    """Strategies that edit weights share their tuned models."""
    return "plain" if kind in ("restore", "wise-ft", "divided") else kind


def _normal_point(share: float) -> float:
    return NormalDist().inv_cdf(min(max(share, 0.002), 0.998))
