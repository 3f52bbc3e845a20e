"""An effect with its uncertainty: cluster bootstrap, sign flips, permutations, the smallest detectable effect.

Models and training sets are the clusters: cells of one model, or of one set, are not independent observations.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import numpy as np
import numpy.typing as npt

from sftlab.errors import UserError

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

RESAMPLES = 2000
PERMUTATIONS = 4999
POWER = 0.8
LEVEL = 0.05
# Up to this many clusters all 2^n sign patterns are counted.
EXACT_FLIPS = 14
# With fewer clusters the smallest p of sign flips, 2^(1 - n), leaves nothing significant after a correction.
FEWEST_FLIPS = 10


@dataclass(frozen=True)
class Effect:
    """A number with a 95 % interval, a p value, and what the test could have seen.

    `detectable` is the smallest true effect that a two-sided test at 5 % finds with 80 % power, before any
    correction for several claims; 0 where the values do not vary, so that nothing can be said. `interval_over` and
    `p_by` say in words how the interval and p were made.
    """

    value: float
    low: float
    high: float
    p: float
    detectable: float
    clusters: int
    interval_over: str
    p_by: str


def mean_effect(values: npt.ArrayLike, axes: tuple[str, ...], seed: int, flip: int = 0) -> Effect:
    """The mean of values [clusters] or [clusters, clusters], with its interval and p.

    The interval is a percentile cluster bootstrap over every axis at once. p is that of `mean_p` of the clusters of
    axis `flip`.

    Args:
        values: no NaN.
        axes: the name of each axis, such as ("models", "data sets").
        flip: the axis whose clusters change sign.

    Raises UserError with fewer than two clusters.
    """
    cells = np.asarray(values, dtype=np.float64)
    if cells.ndim != len(axes):
        raise ValueError(f"values have {cells.ndim} axes, but {len(axes)} names")
    means = cells.mean(axis=tuple(axis for axis in range(cells.ndim) if axis != flip))
    if means.size < 2:
        raise UserError(
            f"an effect over {axes[flip]} has {means.size} of them", value=means.size, expected="two or more"
        )
    rng = np.random.default_rng(seed)
    draws = bootstrap_means(cells, rng, RESAMPLES)
    low, high = np.quantile(draws, [0.025, 0.975])
    return Effect(
        value=float(cells.mean()),
        low=float(low),
        high=float(high),
        p=mean_p(means, rng),
        detectable=detectable(_spread(draws), means.size),
        clusters=means.size,
        interval_over=f"cluster bootstrap over {' and '.join(axes)}",
        p_by=mean_test(means.size, axes[flip]),
    )


def mean_p(means: npt.ArrayLike, rng: np.random.Generator) -> float:
    """Two-sided p of a mean of clusters against 0.

    From `FEWEST_FLIPS` clusters on, a sign-flip test (Fisher 1935): without an effect each cluster's mean is as
    likely to be negative as positive. With fewer, Student's t test, which takes the means as normal. The number of
    clusters alone decides.
    """
    from scipy.stats import ttest_1samp

    values = np.asarray(means, dtype=np.float64)
    # Without variance to estimate only the signs are left.
    if values.size >= FEWEST_FLIPS or np.ptp(values) <= _rounding(values):
        return sign_flip_p(values, rng)
    return float(ttest_1samp(values, 0.0).pvalue)


def mean_test(clusters: int, axis: str) -> str:
    """The test of `mean_p` in words."""
    if clusters < FEWEST_FLIPS:
        return f"t test over {clusters} {axis}"
    counted = "all" if clusters <= EXACT_FLIPS else f"{PERMUTATIONS:,}"
    return f"{counted} sign flips of {clusters} {axis}"


def bootstrap_means(cells: Floats, rng: np.random.Generator, resamples: int) -> Floats:
    """Means of `resamples` samples with replacement of the clusters of every axis (one or two axes)."""
    first = cluster_weights(cells.shape[0], rng, resamples)
    if cells.ndim == 1:
        means: Floats = first @ cells
        return means
    second = cluster_weights(cells.shape[1], rng, resamples)
    means = np.einsum("ra,ab,rb->r", first, cells, second, optimize=True)
    return np.asarray(means, dtype=np.float64)


def cluster_weights(clusters: int, rng: np.random.Generator, resamples: int = RESAMPLES) -> Floats:
    """How often each cluster is drawn, as a share: [resamples, clusters], rows sum to 1."""
    result: Floats = rng.multinomial(clusters, np.full(clusters, 1 / clusters), size=resamples) / clusters
    return result


def sign_flip_p(means: npt.ArrayLike, rng: np.random.Generator) -> float:
    """Two-sided p of a mean of clusters under random signs; exact for up to `EXACT_FLIPS` clusters."""
    values = np.asarray(means, dtype=np.float64)
    observed = abs(values.sum()) - _rounding(values)
    if values.size <= EXACT_FLIPS:
        sums = np.abs(_all_signs(values.size) @ values)
        return float(np.count_nonzero(sums >= observed) / sums.size)
    signs = rng.integers(0, 2, size=(PERMUTATIONS, values.size)) * 2 - 1
    return _share_as_far(np.abs(signs @ values), observed)


def permutation_p(null: npt.ArrayLike, observed: float, two_sided: bool = True) -> float:
    """(number of permuted values at least as far as the observed one + 1) / (permutations + 1).

    Two-sided, distances are measured from the mean of the permuted values.
    """
    values = np.asarray(null, dtype=np.float64)
    if not two_sided:
        return _share_as_far(values, observed - _rounding(values))
    centre = values.mean()
    return _share_as_far(np.abs(values - centre), abs(observed - centre) - _rounding(values))


def bootstrap_sets(
    statistic: Callable[[Floats], float], cells: Floats, axis: int, seed: int, resamples: int = RESAMPLES
) -> Floats:
    """The statistic on samples with replacement along `axis` of the cells: [resamples], without NaN.

    For statistics that are no mean, such as a difference of correlations. A sample whose statistic is not
    defined (all draws the same cluster) is left out.
    """
    rng = np.random.default_rng(seed)
    drawn = rng.integers(0, cells.shape[axis], size=(resamples, cells.shape[axis]))
    values = np.array([statistic(np.take(cells, index, axis=axis)) for index in drawn], dtype=np.float64)
    defined: Floats = values[np.isfinite(values)]
    return defined


def resampled_effect(value: float, draws: Floats, p: float, clusters: int, words: tuple[str, str]) -> Effect:
    """An effect from its bootstrap draws and a p value that was found otherwise; `words`: the two methods.

    Raises UserError where the value, p or all draws are not defined.
    """
    if not draws.size or not np.isfinite([value, p]).all():
        raise UserError(
            "the statistic is not defined", advice="something is constant, or too few models or sets vary."
        )
    low, high = np.quantile(draws, [0.025, 0.975])
    return Effect(
        float(value),
        float(low),
        float(high),
        float(p),
        detectable(_spread(draws), clusters),
        clusters,
        *words,
    )


def detectable(standard_error: float, clusters: int) -> float:
    """(t_0.975 + t_0.8) x standard error, with clusters - 1 degrees of freedom."""
    from scipy.stats import t

    freedom = max(clusters - 1, 1)
    return float((t.ppf(1 - LEVEL / 2, freedom) + t.ppf(POWER, freedom)) * standard_error)


def jackknife_p(without: npt.ArrayLike, value: float) -> float:
    """Two-sided p of a statistic against 0 from its values without each cluster in turn (t, n - 1 degrees).

    For statistics of pairs of clusters, of which no permutation is a null. Its standard error is
    sqrt((n - 1) / n x sum of squared deviations), which is conservative for means over pairs.
    """
    from scipy.stats import t

    left = np.asarray(without, dtype=np.float64)
    n = left.size
    error = np.sqrt((n - 1) / n * np.square(left - left.mean()).sum())
    if error == 0:
        return 1.0 if value == 0 else 0.0
    return float(2 * t.sf(abs(value) / error, n - 1))


def jackknife_effect(without: npt.ArrayLike, value: float, p: float, axis: str, p_by: str) -> Effect:
    """An effect whose interval is value +- t x jackknife standard error, from its values without each cluster.

    For statistics that duplicates in a bootstrap sample would bias, such as ranks and shares of components.
    """
    from scipy.stats import t

    left = np.asarray(without, dtype=np.float64)
    error = float(np.sqrt((left.size - 1) / left.size * np.square(left - left.mean()).sum()))
    half = float(t.ppf(1 - LEVEL / 2, left.size - 1)) * error
    over = f"jackknife over {axis}"
    return Effect(value, value - half, value + half, p, detectable(error, left.size), left.size, over, p_by)


def fisher_mean(correlations: npt.ArrayLike, axis: int | None = None) -> Floats:
    """Mean of correlations through Fisher's z; values of exactly 1 count as 1 - 1e-9."""
    limit = 1 - 1e-9
    z = np.arctanh(np.clip(np.asarray(correlations, dtype=np.float64), -limit, limit))
    result: Floats = np.tanh(z.mean(axis=axis))
    return result


def _share_as_far(distances: Floats, observed: float) -> float:
    return float((np.count_nonzero(distances >= observed) + 1) / (distances.size + 1))


@cache
def _all_signs(clusters: int) -> Floats:
    """All patterns of signs: [2^clusters, clusters]."""
    bits = np.arange(2**clusters)[:, None] >> np.arange(clusters) & 1
    signs: Floats = (1 - 2 * bits).astype(np.float64)
    return signs


def _spread(draws: Floats) -> float:
    """The standard deviation of draws; exactly 0 where they differ by rounding alone."""
    return 0.0 if np.ptp(draws) <= _rounding(draws) else float(draws.std())


def _rounding(values: Floats) -> float:
    """Sums of the same numbers in another order differ in the last bits."""
    return 1e-10 * float(np.abs(values).max(initial=0.0))
