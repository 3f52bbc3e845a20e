"""Does a training set help the benchmarks that it resembles, in words or in embeddings (appendix G of the paper)?"""

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
WORDS, EMBEDDINGS = "words", "embeddings"
ALL_MODELS = "mean of all models"


def similarity_cells(
    survey: Survey, in_words: Similarities, embedded: Mapping[str, Similarities]
) -> list[Row]:
    """Of each set and benchmark of the grid the similarities, and the mean standardised gain over models.

    embedded: by base; the similarity of embeddings is their mean over the models of the grid.
    """
    grid = survey.grid
    gains = survey.gains[STANDARDISED].mean(axis=0)
    words, means = (
        _values(survey, in_words),
        np.mean([_values(survey, embedded.get(m, {})) for m in grid.models], 0),
    )
    return [
        {
            "data": data,
            "benchmark": benchmark,
            "similarity_words": _known(words[d, b]),
            "similarity_embeddings": _known(means[d, b]),
            "standardised_gain": float(gains[d, b]),
        }
        for d, data in enumerate(grid.sets)
        for b, benchmark in enumerate(grid.benchmarks)
    ]


def similarity_prediction(
    survey: Survey, in_words: Similarities, embedded: Mapping[str, Similarities]
) -> list[Row]:
    """r over sets and benchmarks of similarity and gain: of each model, and of the means over models.

    p and null_low, null_high (95 %): the sets are shuffled. low, high: the sets are resampled. Benchmarks without
    questions, such as judged ones, are left out. A measure has no row where a similarity is not known, or one side does
    not vary.
    """
    grid, gains = survey.grid, survey.gains[STANDARDISED]
    words = _values(survey, in_words)
    by_model = np.stack([_values(survey, embedded.get(model, {})) for model in grid.models])
    rows = []
    for measure, alike in ((WORDS, np.stack([words] * len(grid.models))), (EMBEDDINGS, by_model)):
        kept = np.isfinite(alike).any(axis=(0, 1))
        if len(grid.sets) < FEWEST_SETS or not kept.any() or not np.isfinite(alike[..., kept]).all():
            continue
        pairs = {ALL_MODELS: (alike.mean(axis=0), gains.mean(axis=0))}
        pairs |= {model: (alike[m], gains[m]) for m, model in enumerate(grid.models)}
        for model, (one, gain) in pairs.items():
            found = _tested(one[:, kept], gain[:, kept], survey.seed_for("similarity", measure, model))
            if found is not None:
                rows.append({"measure": measure, "model": model, **found})
    return rows


def _tested(alike: Floats, gains: Floats, seed: int) -> Row | None:
    """r of [sets, benchmarks] with its interval and null; None where one side does not vary."""
    r = correlation(alike, gains)
    if not np.isfinite(r):
        return None
    rng = np.random.default_rng(seed)
    orders = rng.random((PERMUTATIONS, len(alike))).argsort(axis=1)
    null = correlation(alike[orders], gains[None])
    draws = bootstrap_sets(
        lambda cells: float(correlation(cells[..., 0], cells[..., 1])),
        np.stack([alike, gains], axis=-1),
        0,
        seed,
    )
    (low, high), (null_low, null_high) = (np.quantile(found, [0.025, 0.975]) for found in (draws, null))
    return {
        "r": float(r),
        "low": float(low),
        "high": float(high),
        "null_low": float(null_low),
        "null_high": float(null_high),
        "p": permutation_p(null, float(r)),
        "sets": alike.shape[0],
        "benchmarks": alike.shape[1],
    }


def correlation(one: Floats, other: Floats) -> Floats:
    """Pearson r over the last two axes; NaN where one side does not vary."""
    a, b = (side - side.mean(axis=(-2, -1), keepdims=True) for side in (one, other))
    length = np.sqrt(np.square(a).sum(axis=(-2, -1)) * np.square(b).sum(axis=(-2, -1)))
    found: Floats = (a * b).sum(axis=(-2, -1)) / np.where(length > 0, length, np.nan)
    return found


def _values(survey: Survey, found: Similarities) -> Floats:
    """Similarities of the grid [sets, benchmarks]; NaN where one is not known."""
    grid = survey.grid
    rows = [[found.get((d, grid.condition.size, b)) for b in grid.benchmarks] for d in grid.sets]
    return np.array([[np.nan if value is None else value for value in row] for row in rows], dtype=np.float64)


def _known(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None
