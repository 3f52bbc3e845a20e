"""Which of several training sets promises the most: predictions from measured gains, and which places are certain.

The model is linear: gain ~ 1 + predictors, such as the logarithms of perplexity and length. Its intervals hold what one
does not know of another set: the training sets are resampled as clusters, as the gains of one set under several base
models are alike, and every predicted set gets an effect drawn from those that the sets of the fit have.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from sftlab.analysis.effects import Floats, cluster_weights

RESAMPLES = 2000
FEWEST_MODELS = 2
SPARE_SETS = 2  # more sets than coefficients


@dataclass(frozen=True)
class Known:
    """Measured gains: of row i, `gains[i]` of a model tuned on a set, with predictors that were known before.

    models, sets: [rows], names. predictors: [rows, predictors].
    """

    models: Sequence[str]
    sets: Sequence[str]
    predictors: Floats
    gains: Floats

    @property
    def enough(self) -> bool:
        """Whether there are sets and models to fit and to judge a prediction."""
        needed = self.predictors.shape[1] + 1 + SPARE_SETS
        return len(set(self.sets)) >= needed and len(set(self.models)) >= FEWEST_MODELS


@dataclass(frozen=True)
class Prediction:
    """Predicted gains of candidates.

    Attributes:
        gain, low, high: [candidates], with 95 % intervals.
        draws: [resamples, candidates], which `places` compares.
        coefficients: the intercept, then one a predictor.
        r2: share of the variance of a base model's gains that the fit without this model predicts, over all models;
            below 0 it predicts worse than the mean of the others does.
    """

    gain: Floats
    low: Floats
    high: Floats
    draws: Floats
    coefficients: Floats
    r2: float


def predict(known: Known, candidates: npt.ArrayLike, seed: int) -> Prediction:
    """Gains of candidates [candidates, predictors] from measured ones, which must be `enough`."""
    assert known.enough, "too few sets or models"
    design = _with_intercept(known.predictors)
    wanted = _with_intercept(np.asarray(candidates, dtype=np.float64))
    fitted = _fit(design, known.gains)
    residuals = known.gains - design @ fitted
    names = list(dict.fromkeys(known.sets))
    at = [np.array([name == row for row in known.sets]) for name in names]
    squares = np.stack([design[rows].T @ design[rows] for rows in at])
    products = np.stack([design[rows].T @ known.gains[rows] for rows in at])
    rng = np.random.default_rng(seed)
    weights = len(names) * cluster_weights(len(names), rng, RESAMPLES)  # [resamples, sets]
    sums = np.einsum("rs,sij->rij", weights, squares)
    drawn = np.einsum("rij,rj->ri", np.linalg.pinv(sums, hermitian=True), weights @ products)
    effects = np.array([residuals[rows].mean() for rows in at])
    effects *= np.sqrt(len(names) / (len(names) - design.shape[1]))  # lost to the fit
    draws = drawn @ wanted.T + rng.choice(effects, (RESAMPLES, len(wanted)))
    low, high = np.quantile(draws, [0.025, 0.975], axis=0)
    return Prediction(wanted @ fitted, low, high, draws, fitted, leave_one_model_out(known))


def leave_one_model_out(known: Known) -> float:
    """R2 of the gains of each model predicted without it, against the mean gain of the other models."""
    design, models = _with_intercept(known.predictors), np.array(known.models)
    missed = spread = 0.0
    for name in dict.fromkeys(known.models):
        left = models == name
        fitted = _fit(design[~left], known.gains[~left])
        missed += float(np.square(known.gains[left] - design[left] @ fitted).sum())
        spread += float(np.square(known.gains[left] - known.gains[~left].mean()).sum())
    return 1 - missed / spread if spread else float("nan")


def places(draws: npt.ArrayLike) -> list[tuple[int, int]]:
    """The places that each candidate may have, 1 the best, from draws [resamples, candidates] of what is compared.

    One is above another where 95 % of the differences of their draws are on one side of 0.
    """
    values = np.asarray(draws, dtype=np.float64)
    low = np.quantile(values[:, :, None] - values[:, None, :], 0.025, axis=0)
    above = low > 0
    count = values.shape[1]
    return [(1 + int(above[:, n].sum()), count - int(above[n].sum())) for n in range(count)]


def mean_draws(sums: npt.ArrayLike, counts: npt.ArrayLike, seed: int) -> Floats:
    """[resamples], bootstrap draws over texts of the total of `sums` over that of `counts`."""
    top, bottom = np.asarray(sums, dtype=np.float64), np.asarray(counts, dtype=np.float64)
    rng = np.random.default_rng(seed)
    found = np.empty(RESAMPLES)
    for number in range(RESAMPLES):
        rows = rng.integers(0, len(top), len(top))
        found[number] = top[rows].sum() / bottom[rows].sum()
    return found


def _with_intercept(predictors: Floats) -> Floats:
    return np.column_stack([np.ones(len(predictors)), predictors])


def _fit(design: Floats, gains: Floats) -> Floats:
    return np.asarray(np.linalg.lstsq(design, gains, rcond=None)[0], dtype=np.float64)
