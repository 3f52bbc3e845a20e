"""How well a score separates two kinds of facts: the area under the ROC curve with its interval."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt


class Area(NamedTuple):
    """Area under the ROC curve with its 95 % interval; 0.5 is chance.

    The ends are NaN where a kind has a single fact.
    """

    value: float
    low: float
    high: float


def area(scores: npt.ArrayLike, positive: npt.ArrayLike) -> Area | None:
    """Probability that a positive has a higher score than a negative; equal scores count half. None without either.

    The interval is that of DeLong, DeLong and Clarke-Pearson (1988), cut at 0 and 1.

    >>> area([3.0, 1.0, 2.0], [True, False, False]).value, area([1.0], [True])
    (1.0, None)
    """
    values, chosen = np.asarray(scores, np.float64), np.asarray(positive, np.bool_)
    first, second = values[chosen], values[~chosen]
    if not first.size or not second.size:
        return None
    ordered = np.sort(second), np.sort(first)
    # Of each positive the share of negatives below it, and of each negative that of positives above it.
    above = _share_below(first, ordered[0])
    below = 1 - _share_below(second, ordered[1])
    value = float(above.mean())
    if first.size < 2 or second.size < 2:
        return Area(value, np.nan, np.nan)
    half = 1.96 * float(np.sqrt(above.var(ddof=1) / first.size + below.var(ddof=1) / second.size))
    return Area(value, max(0.0, value - half), min(1.0, value + half))


def _share_below(
    values: npt.NDArray[np.float64], ordered: npt.NDArray[np.float64]
) -> npt.NDArray[np.float64]:
    counts = np.searchsorted(ordered, values, "left") + np.searchsorted(ordered, values, "right")
    found: npt.NDArray[np.float64] = counts / (2 * ordered.size)
    return found
