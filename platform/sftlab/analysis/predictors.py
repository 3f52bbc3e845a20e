"""Does a property of the training sets, such as their length, predict the gain (Figure 4b)?"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from sftlab.analysis.effects import PERMUTATIONS, Floats, fisher_mean, permutation_p


def r_by_model(predictor: npt.ArrayLike, gains: npt.ArrayLike) -> Floats:
    """Pearson r over the sets, for each model: [..., models]; NaN where a model's gains are constant.

    Args:
        predictor: [..., sets], at least three and not constant.
        gains: [models, sets], such as the mean standardised gain over benchmarks.
    """
    x = np.asarray(predictor, dtype=np.float64)
    y = np.asarray(gains, dtype=np.float64)
    x, y = x - x.mean(axis=-1, keepdims=True), y - y.mean(axis=1, keepdims=True)
    length = np.sqrt(np.square(x).sum(axis=-1)[..., None] * np.square(y).sum(axis=1))
    result: Floats = (x @ y.T) / np.where(length > 0, length, np.nan)
    return result


def r_of_each(predictor: npt.ArrayLike, gains: npt.ArrayLike) -> Floats:
    """Pearson r over the sets, for each model with its values of the predictor: [models].

    Args:
        predictor, gains: [models, sets], at least three sets. NaN where a row is constant.
    """
    x, y = np.asarray(predictor, dtype=np.float64), np.asarray(gains, dtype=np.float64)
    return np.array([r_by_model(x[m], y[m : m + 1])[0] for m in range(len(x))], dtype=np.float64)


def mean_r_of_each_p(predictor: npt.ArrayLike, gains: npt.ArrayLike, seed: int) -> float:
    """Two-sided p of the Fisher mean of `r_of_each` under permutations of the sets, the same for all models."""
    x, y = np.asarray(predictor, dtype=np.float64), np.asarray(gains, dtype=np.float64)
    rng = np.random.default_rng(seed)
    orders = rng.random((PERMUTATIONS, x.shape[1])).argsort(axis=1)
    by_model = np.stack([r_by_model(x[m][orders], y[m : m + 1])[:, 0] for m in range(len(x))], axis=1)
    return permutation_p(fisher_mean(by_model, axis=1), float(fisher_mean(r_of_each(x, y))))


def mean_r(predictor: npt.ArrayLike, gains: npt.ArrayLike) -> float:
    """Mean over models of the correlations, through Fisher's z."""
    return float(fisher_mean(r_by_model(predictor, gains)))


def mean_r_p(predictor: npt.ArrayLike, gains: npt.ArrayLike, seed: int) -> float:
    """Two-sided p of `mean_r` under permutations of the predictor over the sets, the same for all models.

    The models see the same sets, so their correlations are not independent: ten models are no ten replicates.
    """
    x = np.asarray(predictor, dtype=np.float64)
    rng = np.random.default_rng(seed)
    orders = rng.random((PERMUTATIONS, x.size)).argsort(axis=1)
    null = fisher_mean(r_by_model(x[orders], gains), axis=1)
    return permutation_p(null, mean_r(x, gains))
