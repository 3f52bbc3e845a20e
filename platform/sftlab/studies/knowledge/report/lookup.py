"""Look-ups in a variant's long tables: by cell, by group of cells that differ in the set's seed alone."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import NamedTuple

from sftlab.analysis import answer_kinds as kinds_module
from sftlab.analysis.accuracy import BucketAccuracy, Interval, PairedBucket, mean_interval
from sftlab.analysis.answer_kinds import Kinds
from sftlab.analysis.fates import Fates, together
from sftlab.analysis.statistics import over_sets
from sftlab.studies.knowledge.results.answer_rows import TopicRow
from sftlab.studies.knowledge.results.rows import (
    BASE,
    AccuracyRow,
    CellRow,
    ChoiceRow,
    DivergenceRow,
    UpdateRow,
)
from sftlab.studies.knowledge.results.tables import Variant

TEST, TEST_OOD = "test", "test_ood"
DOMAINS = {TEST: "in domain", TEST_OOD: "out of domain"}
MIXED = "mixed"


class Group(NamedTuple):
    """Cells of one train bucket and size; more than one where the sets were drawn with several seeds."""

    train_bucket: str
    size: int


class Spread(NamedTuple):
    """Mean over a group's cells and their sample standard deviation (None for one cell)."""

    mean: float
    deviation: float | None


@dataclass(frozen=True)
class VariantView:
    """One variant's tables, indexed. Look-ups give None for what is not measured.

    choices: the percentage chosen on dev, by group. common: that for all groups together. base_name: what people call
    the base model. prefix, title: of the ids and names of its figures, where a page shows several variants.
    """

    variant: Variant
    choices: Mapping[Group, ChoiceRow] = field(default_factory=dict)
    common: float | None = None
    base_name: str = ""
    prefix: str = ""
    title: str = ""

    @cached_property
    def groups(self) -> dict[Group, list[CellRow]]:
        """By size, then by bucket, mixtures and mixed last."""
        groups: dict[Group, list[CellRow]] = {}
        for cell in sorted(
            self.variant.cells, key=lambda c: (c.size, bucket_order(c.train_bucket), c.set_seed)
        ):
            groups.setdefault(Group(cell.train_bucket, cell.size), []).append(cell)
        return groups

    def groups_of(self, size: int) -> list[Group]:
        """The groups of one size, in their order."""
        return [group for group in self.groups if group.size == size]

    @cached_property
    def sizes(self) -> list[int]:
        """The sizes that the study lists; of one that lists `all` alone, what the buckets hold."""
        listed = {cell.size for cell in self.variant.cells if not cell.everything}
        return sorted(listed or {group.size for group in self.groups})

    @cached_property
    def everything(self) -> Mapping[str, Group]:
        """By train bucket the group that is trained on all facts of its bucket, where there is one."""
        return {cell.train_bucket: self.group_of(cell) for cell in self.variant.cells if cell.everything}

    @cached_property
    def by_size(self) -> Sequence[tuple[str, Mapping[str, Group]]]:
        """The places of an axis of sizes: name, and group by train bucket; `all` last."""
        listed = {cell.size for cell in self.variant.cells if not cell.everything}
        groups = [group for group in self.groups if group.size in listed]
        places: list[tuple[str, Mapping[str, Group]]] = [
            (f"{size:,}", {group.train_bucket: group for group in groups if group.size == size})
            for size in sorted(listed)
        ]
        return [*places, ("all", self.everything)] if self.everything else places

    @cached_property
    def train_buckets(self) -> list[str]:
        return sorted({group.train_bucket for group in self.groups}, key=bucket_order)

    @cached_property
    def percents(self) -> list[float]:
        """Restored percentages of the ladders, ascending, 0 first."""
        return sorted({row.percent for row in self.variant.accuracy if row.percent is not None})

    @cached_property
    def _accuracy(self) -> dict[tuple[str, float | None, str, int | None], AccuracyRow]:
        return {(r.cell, r.percent, r.split, r.bucket): r for r in self.variant.accuracy}

    @cached_property
    def fates(self) -> Mapping[tuple[str, float, str, int], Fates]:
        """What becomes of the facts of one bucket, by cell, percentage, split and bucket; all topics together."""
        found: dict[tuple[str, float, str, int], list[Fates]] = {}
        for row in self.variant.fates:
            found.setdefault((row.cell, row.percent, row.split, row.bucket), []).append(row.fates)
        return {key: together(parts) for key, parts in found.items()}

    @cached_property
    def shown_percents(self) -> Mapping[Group, float | None]:
        """Where the models of each group are shown: as chosen on dev if that restores anything, else next to 20 %."""
        of_cell: dict[str, set[float]] = {}
        for row in self.variant.fates:
            of_cell.setdefault(row.cell, set()).add(row.percent)
        found: dict[Group, float | None] = {}
        for group, cells in self.groups.items():
            known = sorted({percent for cell in cells for percent in of_cell.get(cell.cell, ())})
            choice = self.choices.get(group)
            found[group] = min(known, key=lambda percent: abs(percent - 20), default=None)
            if choice is not None and choice.percent in known:
                found[group] = choice.percent
        return found

    @cached_property
    def _shown(self) -> set[tuple[str, float | None]]:
        cells = ((cell.cell, at) for group, at in self.shown_percents.items() for cell in self.groups[group])
        return {(BASE, None), *(pair for cell, at in cells for pair in ((cell, 0.0), (cell, at)))}

    def shows(self, cell: str, percent: float | None) -> bool:
        """Whether a model is the base model, a tuned one, or a restored one at its group's `shown_percents`."""
        return (cell, percent) in self._shown

    @cached_property
    def answer_kinds(self) -> Mapping[tuple[str, float | None, str, int], Kinds]:
        """Kinds of answers, by cell, percentage, split and the bucket of the facts; all topics together."""
        found: dict[tuple[str, float | None, str, int], list[Kinds]] = {}
        for row in self.variant.answer_kinds:
            found.setdefault((row.cell, row.percent, row.split, row.bucket), []).append(row.kinds)
        return {key: kinds_module.together(parts) for key, parts in found.items()}

    @cached_property
    def topics(self) -> Mapping[tuple[str, str], Sequence[TopicRow]]:
        """Accuracy of every model by split and topic."""
        found: dict[tuple[str, str], list[TopicRow]] = {}
        for row in self.variant.topics:
            found.setdefault((row.split, row.topic), []).append(row)
        return found

    @cached_property
    def updates(self) -> Mapping[tuple[str, str, str], UpdateRow]:
        """By cell, kind and name."""
        return {(row.cell, row.kind, row.name): row for row in self.variant.updates}

    @cached_property
    def gradient_norms(self) -> Mapping[str, Mapping[int, float]]:
        """By cell and step; of the steps whose norm was recorded."""
        found: dict[str, dict[int, float]] = {}
        for row in self.variant.training:
            if row.gradient_norm is not None:
                found.setdefault(row.cell, {})[row.step] = row.gradient_norm
        return found

    @cached_property
    def _kl(self) -> dict[tuple[str, float], DivergenceRow]:
        return {(r.cell, r.percent): r for r in self.variant.divergence}

    def kl_row(self, cell: CellRow, percent: float = 0.0) -> DivergenceRow | None:
        return self._kl.get((cell.cell, percent))

    def row(
        self, cell: str, percent: float | None, split: str, bucket: int | None = None
    ) -> AccuracyRow | None:
        return self._accuracy.get((cell, percent, split, bucket))

    def base(self, split: str, bucket: int | None = None) -> float | None:
        row = self.row(BASE, None, split, bucket)
        return row.accuracy if row else None

    def accuracy(self, group: Group, percent: float, split: str, bucket: int | None = None) -> Spread | None:
        rows = [self.row(cell.cell, percent, split, bucket) for cell in self.groups.get(group, [])]
        return spread(row.accuracy for row in rows if row)

    def kl(self, group: Group, percent: float = 0.0) -> Spread | None:
        rows = (self.kl_row(cell, percent) for cell in self.groups.get(group, []))
        return spread(row.kl for row in rows if row is not None)

    def kl_interval(self, group: Group, percent: float = 0.0) -> Interval | None:
        """Mean KL with its 95 % interval over facts and training sets; None where neither is known."""
        rows = [row for cell in self.groups.get(group, []) if (row := self.kl_row(cell, percent))]
        errors = [row.error for row in rows if row.error is not None]
        if not rows or not (errors or len(rows) > 1):
            return None
        sets, value = over_sets([row.kl for row in rows]), statistics.fmean(row.kl for row in rows)
        half = 1.96 * statistics.fmean(errors) if errors else 0.0
        low, high = (value, value) if sets is None else (sets.low, sets.high)
        return Interval(value, max(0.0, min(low, value - half)), max(high, value + half))

    def interval(self, group: Group, percent: float, split: str) -> Interval | None:
        """Accuracy with what its questions (one cell) or its seeds (several: one deviation) leave open."""
        value = self.accuracy(group, percent, split)
        if value is None:
            return None
        if value.deviation is not None:
            return Interval(value.mean, value.mean - value.deviation, value.mean + value.deviation)
        buckets = self.buckets(self.groups[group][0].cell, percent, split)
        return mean_interval(buckets) if buckets else None

    def buckets(self, cell: str, percent: float | None, split: str) -> list[BucketAccuracy]:
        """One model's counts on one split; empty where it was not asked."""
        rows = (self.row(cell, percent, split, bucket) for bucket in range(5))
        return [BucketAccuracy(r.bucket, r.questions, r.correct) for r in rows if r and r.bucket is not None]

    def paired(self, cell: str, percent: float, split: str) -> list[PairedBucket]:
        """Answers changed against the tuned model, where the study compared them."""
        return [
            PairedBucket(r.bucket, r.questions, r.gained, r.lost)
            for r in self.variant.paired
            if (r.cell, r.percent, r.split) == (cell, percent, split)
        ]

    def questions(self, split: str) -> int:
        """Questions asked of each model on one split."""
        return max(
            (r.questions for r in self.variant.accuracy if r.split == split and r.bucket is None), default=0
        )

    @cached_property
    def curves(self) -> dict[str, list[tuple[int, float]]]:
        """(step, loss) in the order of steps, by cell."""
        curves: dict[str, list[tuple[int, float]]] = {}
        for row in self.variant.training:
            curves.setdefault(row.cell, []).append((row.step, row.loss))
        return {cell: sorted(steps) for cell, steps in curves.items()}

    @property
    def order(self) -> str:
        """Which weights the ladder restores first: top (the paper's), bottom or random."""
        restore = self.variant.spec.get("restore")
        return str(restore.get("order", "top")) if isinstance(restore, Mapping) else "top"

    def group_of(self, cell: CellRow) -> Group:
        return Group(cell.train_bucket, cell.size)

    def gain(self, cell: CellRow) -> float | None:
        """In-domain test accuracy of a run at its group's chosen percentage less that of the tuned model."""
        choice = self.choices.get(self.group_of(cell))
        if choice is None:
            return None
        now, tuned = (self.row(cell.cell, percent, TEST) for percent in (choice.percent, 0.0))
        return now.accuracy - tuned.accuracy if now and tuned else None


def bucket_order(train_bucket: str) -> tuple[bool, str]:
    return not train_bucket.isdecimal(), train_bucket


def spread(values: Iterable[float]) -> Spread | None:
    """None of no values."""
    numbers = list(values)
    if not numbers:
        return None
    deviation = statistics.stdev(numbers) if len(numbers) > 1 else None
    return Spread(statistics.fmean(numbers), deviation)
