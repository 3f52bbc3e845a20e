"""Three-way decomposition of gains into models, training sets, benchmarks and their interactions."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
AXES = ("model", "data", "benchmark")
PARTS = (
    "model",
    "data",
    "benchmark",
    "model x data",
    "model x benchmark",
    "data x benchmark",
    "model x data x benchmark",
)


def variance_parts(gains: npt.ArrayLike) -> dict[str, float]:
    """Share of the total sum of squares about the grand mean of each of `PARTS`; they sum to 1.

    The gains are a full grid with one value a cell, so that the three-way part holds the noise too. All shares are
    NaN where nothing varies.

    Args:
        gains: [models, sets, benchmarks].
    """
    cells = np.asarray(gains, dtype=np.float64)
    total = np.square(cells - cells.mean()).sum()
    effects: dict[frozenset[int], Floats] = {frozenset(): cells.mean(keepdims=True)}
    shares: dict[str, float] = {}
    for part in PARTS:
        axes = frozenset(AXES.index(name) for name in part.split(" x "))
        others = tuple(axis for axis in range(3) if axis not in axes)
        means = cells.mean(axis=others, keepdims=True) if others else cells
        effect = means - sum(effects[lower] for lower in effects if lower < axes)
        effects[axes] = effect
        size = np.square(np.broadcast_to(effect, cells.shape)).sum()
        shares[part] = float(size / total) if total > 0 else float("nan")
    return shares


def synergy(gains: npt.ArrayLike) -> float:
    """Of what a (set, benchmark) pair adds to its set and its benchmark, the share that is common to all models.

    The sum of squares of data x benchmark over that and the three-way part. A baseline, being constant for a model
    and benchmark, changes neither. NaN where a pair adds nothing.

    Args:
        gains: [models, sets, benchmarks].
    """
    cells = np.asarray(gains, dtype=np.float64)
    added = cells - cells.mean(axis=1, keepdims=True) - cells.mean(axis=2, keepdims=True)
    added = added + cells.mean(axis=(1, 2), keepdims=True)
    total = np.square(added).sum()
    common = len(cells) * np.square(added.mean(axis=0)).sum()
    return float(common / total) if total > 0 else float("nan")
