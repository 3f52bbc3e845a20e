"""Measures behind the report's comparisons: gains, noise, distributions over layers and modules."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

from sftlab.analysis.accuracy import difference_interval, paired_interval
from sftlab.studies.knowledge.report import published
from sftlab.studies.knowledge.report.lookup import TEST, Group, VariantView


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


def distribution_percent(view: VariantView) -> float | None:
    """The common choice if it restores anything, else the percentage nearest to 20 %."""
    known = sorted({row.percent for row in view.variant.distribution if 0 < row.percent < 100})
    if view.common and view.common in known:
        return view.common
    return min(known, key=lambda p: abs(p - 20), default=None)


def _shares(view: VariantView, kind: str, at: float | None) -> dict[str, float]:
    shares: dict[str, list[float]] = {}
    for row in view.variant.distribution:
        if row.percent == at and row.kind == kind:
            shares.setdefault(row.name, []).append(row.share)
    return {name: mean(values) for name, values in shares.items()}


def rank_correlation(xs: Sequence[float], ys: Sequence[float]) -> float:
    """Spearman's rho; 0 where one of the two is constant."""
    from scipy.stats import spearmanr

    if len(set(xs)) == 1 or len(set(ys)) == 1:
        return 0.0
    return float(spearmanr(xs, ys).statistic)


def verdict(difference: float, noise: float, paper: float) -> bool | None:
    """Whether the difference has the paper's sign; None where it is within the noise."""
    return None if abs(difference) <= noise else difference * paper > 0


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
    groups = [g for g in view.groups if g.size == size and g.train_bucket.isdecimal()]
    unknown = next((g for g in groups if g.train_bucket == "0"), None)
    return unknown, [g for g in groups if g != unknown]


def accuracies(view: VariantView, groups: Sequence[Group], at: float) -> list[float]:
    return [s.mean for g in groups if (s := view.accuracy(g, at, TEST))]


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
    """Half width of the interval of a difference between two gains."""
    return math.sqrt(2) * mean([choice_noise(view, cell) for cell in cells])


def mean(values: Sequence[float]) -> float:
    return math.fsum(values) / len(values)
