"""Measures behind the report's comparisons: gains, noise, distributions over layers and modules."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Collection, Iterable, Sequence
from typing import NamedTuple

from sftlab.analysis.accuracy import difference_interval, paired_interval
from sftlab.analysis.statistics import over_sets
from sftlab.reporting.text import number, points
from sftlab.studies.knowledge.report import published
from sftlab.studies.knowledge.report.lookup import TEST, Group, VariantView
from sftlab.studies.knowledge.results.rows import CellRow, DistributionRow

SIZE = re.compile(r"-n(?:\d+|all)(?=-|$)")  # within the name of a cell
NULL_NOISE = 0.02  # shares that differ from the null by less, relative to it, are no more than the null


def weight_shares(view: VariantView) -> dict[str, float]:
    """Share in [0, 1] of all the region's weights by kind of module, means over the cells; empty where unknown."""
    return dict(_shares(view, "module", 100.0))


def distribution(view: VariantView, kind: str) -> list[tuple[str, float]]:
    """Shares in [0, 1] of one kind, means over the cells at `distribution_percent`.

    Layers in their order; weights outside of the layers are left out and the others add up to 1. Modules
    from the largest on.
    """
    means = _shares(view, kind, distribution_percent(view))
    if kind == "module":
        return sorted(means.items(), key=lambda pair: -pair[1])
    layers = sorted((int(name), share) for name, share in means.items() if name.isdecimal())
    total = math.fsum(share for _, share in layers) or 1.0
    return [(str(layer), share / total) for layer, share in layers]


def null_distribution(view: VariantView, kind: str) -> dict[str, float]:
    """The shares of `distribution` with the updates of each parameter shuffled; empty where they are not measured."""
    rows = _rows(view, kind, distribution_percent(view))
    means = {
        name: mean([row.null for row in of if row.null is not None])
        for name, of in rows.items()
        if _has_null(of)
    }
    if kind == "module":
        return means
    layers = {name: share for name, share in means.items() if name.isdecimal()}
    total = math.fsum(layers.values()) or 1.0
    return {name: share / total for name, share in layers.items()}


def is_beyond_null(view: VariantView, kind: str, names: Collection[str], above: bool | None = None) -> bool:
    """Whether the share of these layers or modules together is another than with shuffled updates (`beyond_null`)."""
    sums: dict[str, list[float]] = {}
    for name, rows in _rows(view, kind, distribution_percent(view)).items():
        for row in rows:
            if name in names and row.null is not None:
                of_cell = sums.setdefault(row.cell, [0.0, 0.0])
                of_cell[0] += row.share
                of_cell[1] += row.null
    return beyond_null([(cell, share, null) for cell, (share, null) in sums.items()], above)


def beyond_null(shares: Iterable[tuple[str, float, float | None]], above: bool | None = None) -> bool:
    """Whether shares are others than those with shuffled updates; each has the name of its cell.

    above: the share must be more (True) or less (False) than with shuffled updates; either if None. A claim that there
    is more in one place is not held by less: rounding to bfloat16 alone makes random updates less concentrated than
    shuffled ones. The mean relative difference must exceed NULL_NOISE, and its t interval over training sets must not
    hold 0. Cells that differ in size alone have nested sets and count as one. False for a single set, of which no
    interval exists, and where shuffled updates are not measured.
    """
    ratios: dict[str, list[float]] = {}
    for cell, share, null in shares:
        if null:
            ratios.setdefault(SIZE.sub("", cell), []).append(share / null - 1)
    found = over_sets([mean(of_set) for of_set in ratios.values()])
    if found is None or abs(found.mean) <= NULL_NOISE or found.low <= 0 <= found.high:
        return False
    return above is None or above == (found.mean > 0)


def distribution_percent(view: VariantView) -> float | None:
    """The common choice if it restores anything, else the percentage nearest to 20 %."""
    known = sorted({row.percent for row in view.variant.distribution if 0 < row.percent < 100})
    if view.common and view.common in known:
        return view.common
    return min(known, key=lambda p: abs(p - 20), default=None)


def _shares(view: VariantView, kind: str, at: float | None) -> dict[str, float]:
    return {name: mean([row.share for row in rows]) for name, rows in _rows(view, kind, at).items()}


def _rows(view: VariantView, kind: str, at: float | None) -> dict[str, list[DistributionRow]]:
    found: dict[str, list[DistributionRow]] = {}
    for row in view.variant.distribution:
        if row.percent == at and row.kind == kind:
            found.setdefault(row.name, []).append(row)
    return found


def _has_null(rows: Sequence[DistributionRow]) -> bool:
    return any(row.null is not None for row in rows)


class Contrast(NamedTuple):
    """A difference over training sets with its 95 % interval over them and the questions; `sets` is their number."""

    mean: float
    low: float
    high: float
    sets: int

    def agrees(self, paper: float) -> bool | None:
        """Whether the difference has the paper's sign; None where the interval holds 0, and for one training set."""
        return None if self.sets < 2 or self.low <= 0 <= self.high else self.mean * paper > 0

    def words(self, unit: str = "points") -> str:
        """' 95 % interval ...', or that this is about one training set."""
        if self.sets < 2:
            return " One training set: no verdict, for this training set alone."
        ends = [points(end) if unit == "points" else number(end, 2) for end in (self.low, self.high)]
        return f" 95 % interval over {self.sets} training sets and the questions: {' to '.join(ends)} {unit}."


def contrast(values: Sequence[float], noise: float) -> Contrast:
    """The hull of the t interval over training sets and of the half width `noise` that the questions leave.

    values: one a training set.
    """
    sets, middle = over_sets(values), mean(values)
    ends = (middle, middle) if sets is None else (sets.low, sets.high)
    return Contrast(middle, min(ends[0], middle - noise), max(ends[1], middle + noise), len(values))


def by_seed(
    view: VariantView, groups: Sequence[Group], value: Callable[[Sequence[CellRow]], float | None]
) -> list[float]:
    """The value for each training set (seed) that all groups have; `value` takes its runs in the groups' order."""
    runs = [{cell.set_seed: cell for cell in view.groups.get(group, [])} for group in groups]
    shared = sorted(set.intersection(*(set(run) for run in runs))) if runs else []
    found = (value([run[seed] for run in runs]) for seed in shared)
    return [number for number in found if number is not None]


def accuracy_of(view: VariantView, cells: Sequence[CellRow], at: float, split: str = TEST) -> float | None:
    """Mean accuracy of some runs at a percentage; None where one was not asked."""
    rows = [view.row(cell.cell, at, split) for cell in cells]
    return mean([row.accuracy for row in rows if row]) if cells and all(rows) else None


def gain_of(view: VariantView, cells: Sequence[CellRow]) -> float | None:
    """Mean gain of some runs at the percentages chosen for their groups."""
    gains = [view.gain(cell) for cell in cells]
    return mean([gain for gain in gains if gain is not None]) if cells and None not in gains else None


def less(first: float | None, second: float | None) -> float | None:
    return None if first is None or second is None else first - second


def pairs_of_sizes(view: VariantView) -> tuple[list[Group], list[Group]]:
    """Groups of a small and of the largest size, of the train buckets that have both.

    The small size is the paper's 240 where a study has it (below it the paper sees accuracy rise), else the
    smallest.
    """
    if len(view.sizes) < 2:
        return [], []
    large = view.sizes[-1]
    small = published.SIZES[0] if published.SIZES[0] in view.sizes[:-1] else view.sizes[0]
    both = [
        b
        for b in view.train_buckets
        if view.accuracy(Group(b, small), 0.0, TEST) and view.accuracy(Group(b, large), 0.0, TEST)
    ]
    return [Group(b, small) for b in both], [Group(b, large) for b in both]


def unknown_and_others(view: VariantView) -> tuple[Group | None, list[Group]]:
    """Bucket 0 and the other buckets at the largest size; mixed sets and mixtures are neither."""
    size = max(view.sizes, default=0)
    groups = [g for g in view.groups_of(size) if g.train_bucket.isdecimal()]
    unknown = next((g for g in groups if g.train_bucket == "0"), None)
    return unknown, [g for g in groups if g != unknown]


def chosen_gains(view: VariantView) -> dict[str, float]:
    """In-domain test gain over the tuned model at the percentage chosen on dev for the group, by cell."""
    gains = {cell.cell: view.gain(cell) for cell in view.variant.cells}
    return {cell: gain for cell, gain in gains.items() if gain is not None}


def paper_gains(size: int) -> list[float]:
    table = published.ladder(TEST, size)
    return [max(row[bucket] for row in table.values()) - table[0.0][bucket] for bucket in range(5)]


def noise_of_pairs(view: VariantView, pairs: Sequence[tuple[Group, float, Group, float]]) -> float:
    """Mean half width of the pairs' 95 % intervals: all models answer the same questions, so that the mean
    over several pairs is not taken to be surer than one pair."""
    halves = [
        half_width(view, (view.groups[a][0].cell, p), (view.groups[b][0].cell, q), TEST)
        for a, p, b, q in pairs
    ]
    return mean(halves)


def half_width(view: VariantView, second: tuple[str, float], first: tuple[str, float], split: str) -> float:
    a, b = view.buckets(*second, split), view.buckets(*first, split)
    if not a or not b:
        return 0.0
    interval = difference_interval(a, b)
    return (interval.high - interval.low) / 2


def choice_noise(view: VariantView, cell: str) -> float:
    percent = next(view.choices[view.group_of(row)].percent for row in view.variant.cells if row.cell == cell)
    if not percent:
        return 0.0
    paired = view.paired(cell, percent, TEST)
    if any(b.questions for b in paired):
        interval = paired_interval(paired)
        return (interval.high - interval.low) / 2
    return half_width(view, (cell, percent), (cell, 0.0), TEST)


def gain_noise(view: VariantView, cells: Iterable[str]) -> float:
    """Half width of the questions' interval of a difference between two gains."""
    return math.sqrt(2) * mean([choice_noise(view, cell) for cell in cells])


def mean(values: Sequence[float]) -> float:
    return math.fsum(values) / len(values)
