"""A small made-up sweep to log: answers are drawn first, and every table comes from them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from sftlab.analysis.accuracy import BucketAccuracy, PairedBucket
from sftlab.analysis.statistics import seed_of
from sftlab.studies.knowledge.results.rows import (
    CellRow,
    ConcentrationRow,
    DivergenceRow,
    MasteryRow,
    TrainingRow,
    accuracy_rows,
    paired_rows,
)
from sftlab.studies.knowledge.results.statistics import fill_tables
from sftlab.studies.knowledge.results.tables import Results, Variant
from sftlab.tracking import TrackedModel, TrackedTable

PERCENTS = (0.0, 2.5, 10.0, 40.0)
SPLITS = ("dev", "dev_ood", "test", "test_ood")
QUESTIONS = 12  # of each bucket
TIME = "2026-01-02T03:04:05+00:00"
# The share of right answers by percentage: restoring helps, then destroys.
LADDER = {0.0: 0.35, 2.5: 0.4, 10.0: 0.6, 40.0: 0.1}
STRATEGIES: dict[str, dict[str, Any]] = {
    "restore": {},
    "wise-ft": {},
    "l2-sp strength=0.1": {"strength": 0.1},
}


class MadeUpSweep:
    """Variants with their answers. The best model is bucket 4 of `restore` at 10 %."""

    def __init__(
        self,
        buckets: Sequence[int] = (0, 4),
        seeds: Sequence[int] = (0, 1),
        strategies: Sequence[str] = tuple(STRATEGIES),
        sizes: Sequence[int] = (100,),
        percents: Sequence[float] = PERCENTS,
    ) -> None:
        self.buckets, self.seeds, self.sizes, self.percents = buckets, seeds, sizes, tuple(percents)
        self.given: dict[tuple[str, str, float, str], Any] = {}
        self.variants = [self._variant(name) for name in strategies]

    def results(self, name: str = "made-up-sweep") -> Results:
        spec = {"sweep": {"axes": {"data": list(self.buckets)}}, "study": {"name": "made-up"}}
        made = Results(name, "pocket Llama", spec, variants=self.variants, reference="restore")
        return fill_tables(made, lambda *at: self.given[at])

    def ladder(self, variant: str) -> tuple[float, ...]:
        return (0.0,) if variant.startswith("l2-sp") else self.percents

    def _variant(self, name: str) -> Variant:
        cells = [
            CellRow(f"bucket{b}-n{n}-s{s}", str(b), n, s, 5200.0, n / 40)
            for b in self.buckets
            for n in self.sizes
            for s in self.seeds
        ]
        accuracy = [
            row for split in SPLITS for row in accuracy_rows(None, None, split, _counts(*_base(split)))
        ]
        paired = []
        for cell in cells:
            for percent in self.ladder(name):
                for split in SPLITS:
                    answers = self.given[name, cell.cell, percent, split] = _drawn(name, cell, percent, split)
                    accuracy += accuracy_rows(cell, percent, split, _counts(*answers))
                    if percent:
                        pairs = _pairs(self.given[name, cell.cell, 0.0, split], answers)
                        paired += paired_rows(cell.cell, percent, split, pairs)
                trained = _trained(cell, percent)
                self.given[name, cell.cell, percent, "train_set"] = trained
                asked = [c for c in _counts(*trained) if c.questions]
                accuracy += accuracy_rows(cell, percent, "train_set", asked)
        return Variant(
            name=name,
            strategy=name.split()[0],
            settings=STRATEGIES.get(name, {}),
            spec={
                "sft": {"batch_size": 8, "learning_rate": 1e-3, "epochs": 1, "lora": None},
                "restore": {"region": "layers", "order": "top", "percents": list(self.percents)},
            },
            provenance={"commit": "0123456789abcdef", "model_id": "b" * 64, "facts_id": "f" * 64},
            cells=cells,
            accuracy=accuracy,
            paired=paired,
            divergence=[
                DivergenceRow(c.cell, p, 31, (1 - p / 100) * (0.3 + 0.1 * (4 - int(c.train_bucket))))
                for c in cells
                for p in self.ladder(name)
            ],
            concentration=[
                ConcentrationRow(c.cell, top, share)
                for c in cells
                for top, share in ((1.0, 0.71), (5.0, 0.86), (20.0, 0.95))
            ],
            mastery=[MasteryRow(split, bucket, 50) for split in SPLITS for bucket in range(5)],
            training=[
                TrainingRow(c.cell, step, 0.5 + 3.5 / step, 1e-3 * (1 - step / 13))
                for c in cells
                for step in range(1, 13)
            ],
        )


def base_of() -> TrackedModel:
    return TrackedModel("b" * 64, provenance={"time": TIME})


def models_of(results: Results, folder: Path | None) -> dict[str, list[TrackedModel]]:
    """The models of every variant, in the store as `folder`; ids as of an evaluation."""
    found: dict[str, list[TrackedModel]] = {}
    for variant in results.variants:
        for cell in variant.cells:
            ladder = sorted({r.percent for r in variant.divergence if r.cell == cell.cell})
            train_set = TrackedTable(
                cell.cell, f"{seed_of(cell.cell):064x}"[-64:], "train.parquet", cell.size, context="training"
            )
            found.setdefault(variant.name, []).extend(
                TrackedModel(
                    id=f"{seed_of('id', variant.name if p else 'tuned', cell.cell, p):064x}"[-64:][::-1],
                    cell=cell.cell,
                    percent=p,
                    path=folder,
                    train_set=train_set,
                    provenance={"time": TIME, "commit": "0123456789abcdef"},
                )
                for p in ladder
            )
    return found


def _strata() -> Any:
    return np.repeat(np.arange(5), QUESTIONS)


def _base(split: str) -> tuple[Any, Any]:
    draw = np.random.default_rng(seed_of("base", split)).random(5 * QUESTIONS)
    return draw < 0.3 + 0.1 * (_strata() - 2), _strata()


def _drawn(variant: str, cell: CellRow, percent: float, split: str) -> tuple[Any, Any]:
    """Verdicts of one model: every model finds the same questions hard."""
    hard = np.random.default_rng(seed_of("question", split)).random(5 * QUESTIONS)
    own = np.random.default_rng(seed_of(cell.cell, split)).random(5 * QUESTIONS)
    share = LADDER.get(percent, 0.3)
    share += 0.04 * int(cell.train_bucket) - 0.05 * split.endswith("ood")
    share += {"restore": 0.0, "wise-ft": -0.06 if percent else 0.0}.get(variant, 0.03)
    return 0.8 * hard + 0.2 * own < share + 0.08 * (_strata() - 2), _strata()


def _trained(cell: CellRow, percent: float) -> tuple[Any, Any]:
    """Verdicts on the training set itself: known by heart, and forgotten by and by."""
    hard = np.random.default_rng(seed_of(cell.cell, "train_set")).random(cell.size)
    return hard < 0.95 - percent / 80, np.full(cell.size, int(cell.train_bucket))


def _counts(right: Any, strata: Any) -> list[BucketAccuracy]:
    return [BucketAccuracy(b, int((strata == b).sum()), int(right[strata == b].sum())) for b in range(5)]


def _pairs(tuned: tuple[Any, Any], restored: tuple[Any, Any]) -> list[PairedBucket]:
    before, strata = tuned
    after = restored[0]
    return [
        PairedBucket(
            b,
            int((strata == b).sum()),
            int((after & ~before)[strata == b].sum()),
            int((before & ~after)[strata == b].sum()),
        )
        for b in range(5)
    ]
