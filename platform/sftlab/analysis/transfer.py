"""Do gains on one benchmark come with gains on another, such as the same questions in other languages (Figure A.1)?"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from sftlab.analysis.agreement import correlations, lower_triangle
from sftlab.analysis.effects import PERMUTATIONS, permutation_p

Floats = npt.NDArray[np.float64]


def group_correlations(gains: npt.ArrayLike, groups: Sequence[str]) -> dict[str, Floats]:
    """For each group of models, r between benchmarks over its (model, set) cells: [benchmarks, benchmarks].

    Args:
        gains: [models, sets, benchmarks], the benchmarks that are compared.
        groups: of each model, such as the language that it was pre-trained on.
    """
    cells, names = np.asarray(gains, dtype=np.float64), np.asarray(groups)
    return {
        str(name): correlations(cells[names == name].reshape(-1, cells.shape[2]).T)
        for name in dict.fromkeys(groups)
    }


def mean_correlation(gains: npt.ArrayLike, groups: Sequence[str]) -> float:
    """The mean r over all groups and pairs of benchmarks; NaN where one is not defined."""
    found = group_correlations(gains, groups)
    return float(np.mean([lower_triangle(matrix).mean() for matrix in found.values()]))


def mean_correlation_p(
    gains: npt.ArrayLike, groups: Sequence[str], seed: int, permutations: int = 999
) -> float:
    """Two-sided p of `mean_correlation` with the sets of each benchmark in random order, the same for all models."""
    cells = np.asarray(gains, dtype=np.float64)
    rng = np.random.default_rng(seed)
    null = []
    for _ in range(permutations):
        orders = rng.random(cells.shape[1:]).argsort(axis=0)
        null.append(mean_correlation(np.take_along_axis(cells, orders[None], axis=1), groups))
    return permutation_p(null, mean_correlation(cells, groups))


def weakest(gains: npt.ArrayLike, groups: Sequence[str]) -> float:
    """The smallest r over all groups and pairs of benchmarks; NaN where one is not defined."""
    found = group_correlations(gains, groups)
    return float(np.min([lower_triangle(matrix).min() for matrix in found.values()]))


def weakest_p(gains: npt.ArrayLike, groups: Sequence[str], seed: int) -> float:
    """p of "every pair in every group is correlated": the largest of the pairs' p values.

    An intersection-union test: all of them have to hold, so that no correction for their number is due. Each p is
    from permutations of the sets of one benchmark, the same for all models, so that models stay whole.
    """
    cells, names = np.asarray(gains, dtype=np.float64), np.asarray(groups)
    rng = np.random.default_rng(seed)
    orders = np.stack([rng.permutation(cells.shape[1]) for _ in range(PERMUTATIONS)])
    largest = 0.0
    for name in dict.fromkeys(groups):
        here = cells[names == name]
        for first in range(cells.shape[2]):
            for second in range(first):
                largest = max(largest, _pair_p(here[..., first], here[..., second], orders))
    return largest


def _pair_p(first: Floats, second: Floats, orders: npt.NDArray[np.int64]) -> float:
    """Two-sided p of r over [models, sets] cells with the sets of `second` in each of `orders`."""
    one = (first - first.mean()).ravel()
    shuffled = (second - second.mean())[:, orders]  # [models, permutations, sets]
    null = np.swapaxes(shuffled, 0, 1).reshape(len(orders), -1) @ one
    return permutation_p(null, float((second - second.mean()).ravel() @ one))
