"""Does a training set help benchmarks with the same words (appendix G of the paper)?"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from sftlab.analysis.effects import PERMUTATIONS, Floats, bootstrap_sets, permutation_p
from sftlab.analysis.gains import STANDARDISED
from sftlab.studies.survey.survey import Survey

Row = dict[str, Any]
Similarities = Mapping[tuple[str, int, str], float | None]
"""Similarity by set, size and benchmark; None where one of them has no words."""
FEWEST_SETS = 3


def similarity_cells(survey: Survey, found: Similarities) -> list[Row]:
    """Of each set and benchmark of the grid the similarity, and the mean standardised gain over models."""
    grid = survey.grid
    gains = survey.gains[STANDARDISED].mean(axis=0)
    return [
        {
            "data": data,
            "benchmark": benchmark,
            "similarity": found.get((data, grid.condition.size, benchmark)),
            "standardised_gain": float(gains[d, b]),
        }
        for d, data in enumerate(grid.sets)
        for b, benchmark in enumerate(grid.benchmarks)
    ]


def similarity_prediction(survey: Survey, found: Similarities) -> list[Row]:
    """r over sets and benchmarks of similarity and mean gain; p: sets are shuffled; interval: sets are resampled.

    Empty where a similarity is not known, or one side does not vary.
    """
    grid = survey.grid
    values = [[found.get((d, grid.condition.size, b)) for b in grid.benchmarks] for d in grid.sets]
    if len(grid.sets) < FEWEST_SETS or any(value is None for row in values for value in row):
        return []
    alike, gains = np.array(values, dtype=np.float64), survey.gains[STANDARDISED].mean(axis=0)
    r = correlation(alike, gains)
    if not np.isfinite(r):
        return []
    seed = survey.seed_for("similarity")
    rng = np.random.default_rng(seed)
    null = np.array([correlation(alike[rng.permutation(len(alike))], gains) for _ in range(PERMUTATIONS)])
    draws = bootstrap_sets(
        lambda cells: correlation(cells[..., 0], cells[..., 1]), np.stack([alike, gains], axis=-1), 0, seed
    )
    low, high = np.quantile(draws, [0.025, 0.975])
    return [
        {
            "r": r,
            "low": float(low),
            "high": float(high),
            "p": permutation_p(null, r),
            "sets": len(grid.sets),
            "benchmarks": len(grid.benchmarks),
        }
    ]


def correlation(one: Floats, other: Floats) -> float:
    """Pearson r over all cells; NaN where one side does not vary."""
    a, b = one - one.mean(), other - other.mean()
    length = float(np.sqrt(np.square(a).sum() * np.square(b).sum()))
    return float((a * b).sum() / length) if length > 0 else float("nan")
