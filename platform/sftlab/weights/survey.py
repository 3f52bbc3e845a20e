"""One search from its first pass to its last: thresholds, what is restored of every parameter, concentration."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from sftlab.weights.cut import CONCENTRATION_PERCENTS, restored_count
from sftlab.weights.reader import Counts
from sftlab.weights.search import Histogram, Search, Threshold, sum_of_largest, tie_boundary
from sftlab.weights.stream import Progress


@dataclass(frozen=True)
class Survey:
    """What three passes find.

    changed: weights whose relative change is above 0. total_change: the sum of all relative changes. concentration:
    as `ChangeProfile.concentration`. thresholds: label -> where the first weights of the order end. counts: parameter
    -> keys above (row 0) and equal to (row 1) each threshold, int64 [2, labels].
    """

    changed: int
    total_change: float
    concentration: Mapping[str, float]
    thresholds: Mapping[str, Threshold]
    counts: Mapping[str, Counts]

    def restored(self, label: str) -> tuple[dict[str, int], tuple[str, int] | None]:
        """How many weights are restored of every parameter, and the boundary as `tie_boundary` gives it."""
        index = list(self.thresholds).index(label)
        taken, last = tie_boundary(self.counts, index, self.thresholds[label].ties)
        return {name: int(of[0, index]) + taken[name] for name, of in self.counts.items()}, last


def survey(
    search: Search, ranks: Mapping[str, int], outside: Mapping[str, int], progress: Progress
) -> Survey:
    """Three passes over the pair. ranks: label -> number of weights to restore. outside: parameters to check only."""
    total = sum(search.sizes.values())
    shares = {label: restored_count(total, label) for label in CONCENTRATION_PERCENTS}
    change, keys, low_sums = search.count_high(outside, progress)
    changes, ordered = search.count_low(change, list(shares.values()), keys, list(ranks.values()), progress)
    thresholds = {label: ordered.threshold(rank) for label, rank in ranks.items()}
    counts = search.count_ties([threshold.key for threshold in thresholds.values()], progress)
    whole = sum_of_largest(changes, low_sums)
    return Survey(
        changed=total - int(change[0]),  # the smallest change of a float32 is far above the lowest bin
        total_change=whole,
        concentration=_concentration(changes, low_sums, shares, whole),
        thresholds=thresholds,
        counts=counts,
    )


def _concentration(
    changes: Histogram, low_sums: Counts, shares: Mapping[str, int], whole: float
) -> dict[str, float]:
    if whole == 0.0:
        return dict.fromkeys(shares, 0.0)
    return {
        label: sum_of_largest(changes, low_sums, changes.threshold(count)) / whole
        for label, count in shares.items()
    }
