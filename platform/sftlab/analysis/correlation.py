"""Correlations with bootstrap intervals over their points, pooled or within groups such as training sizes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

RESAMPLES = 2_000
FEWEST = 4  # points

Floats = npt.NDArray[np.float64]


class Correlation(NamedTuple):
    """A correlation in [-1, 1] with its 95 % interval, over so many points."""

    value: float
    low: float
    high: float
    points: int


def correlate(
    xs: Sequence[float],
    ys: Sequence[float],
    within: Sequence[object] | None = None,
    ranks: bool = True,
    seed: int = 0,
) -> Correlation | None:
    """Spearman's rho (mean ranks for ties), or Pearson's r, with a percentile bootstrap over the points.

    Args:
        within: the group of each point; both variables are then ranked and centred within the groups, and the points
            of a group are resampled among themselves, so that differences between groups do not count.
        ranks: Spearman's rho; else Pearson's r.
        seed: of the resampling.

    None for fewer than FEWEST points, and where a variable is constant (within all groups).
    """
    if len(xs) < FEWEST:
        return None
    values = np.array([xs, ys], dtype=np.float64)
    labels = [None] * len(xs) if within is None else list(within)
    members = [np.flatnonzero([label == one for label in labels]) for one in dict.fromkeys(labels)]
    members = [member for member in members if within is None or len(member) > 1]
    rng = np.random.default_rng(seed)
    found = _coefficients(values, [member[None] for member in members], ranks)
    drawn = [rng.choice(member, size=(RESAMPLES, len(member))) for member in members]
    samples = _coefficients(values, drawn, ranks)
    samples = samples[np.isfinite(samples)]
    if not found.size or not np.isfinite(found[0]) or not samples.size:
        return None
    low, high = np.quantile(samples, [0.025, 0.975])
    return Correlation(float(found[0]), float(low), float(high), sum(map(len, members)))


def _coefficients(values: Floats, drawn: Sequence[npt.NDArray[np.int64]], ranks: bool) -> Floats:
    """The coefficient of every sample; drawn: by group [samples, points]. NaN where a variable is constant."""
    from scipy.stats import rankdata

    centred = []
    for index in drawn:
        parts = values[:, index]  # [2, samples, points]
        parts = rankdata(parts, axis=2) / index.shape[1] if ranks else parts
        centred.append(parts - parts.mean(axis=2, keepdims=True))
    if not centred:
        return np.empty(0)
    x, y = np.concatenate(centred, axis=2)
    spread = np.sqrt((x * x).sum(axis=1) * (y * y).sum(axis=1))
    with np.errstate(invalid="ignore", divide="ignore"):
        result: Floats = np.where(spread > 1e-12, (x * y).sum(axis=1) / spread, np.nan)
    return result
