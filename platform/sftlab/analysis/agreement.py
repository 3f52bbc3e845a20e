"""Do models, training sets and benchmarks react alike? Correlations of gains (Figures 2c and 3 of Harada et al. 2025).

Gains are [models, sets, benchmarks] in any treatment of `sftlab.analysis.gains`. Correlations are Pearson's; one
with a constant is NaN.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from sftlab.analysis.effects import PERMUTATIONS, permutation_p

Floats = npt.NDArray[np.float64]


def correlations(rows: npt.ArrayLike) -> Floats:
    """Pearson correlations between the rows of [..., rows, values]: [..., rows, rows]; NaN of rows without values."""
    values = np.asarray(rows, dtype=np.float64)
    if not values.shape[-1]:
        return np.full((*values.shape[:-1], values.shape[-2]), np.nan)
    centred = values - values.mean(axis=-1, keepdims=True)
    length = np.sqrt(np.square(centred).sum(axis=-1, keepdims=True))
    # What is left of a constant after centring is rounding.
    size = np.abs(values).max(axis=-1, keepdims=True) * values.shape[-1]
    unit = centred / np.where(length > 1e-12 * size, length, np.nan)
    found: Floats = np.clip(unit @ np.swapaxes(unit, -1, -2), -1.0, 1.0)
    return found


def model_correlations(gains: npt.ArrayLike) -> Floats:
    """r between models over all (set, benchmark) pairs: [models, models] (Figure 2c)."""
    cells = np.asarray(gains, dtype=np.float64)
    return correlations(cells.reshape(cells.shape[0], -1))


def benchmark_correlations(gains: npt.ArrayLike) -> Floats:
    """For each model, r between benchmarks over the sets: [models, benchmarks, benchmarks] (Figure 3)."""
    return correlations(np.swapaxes(np.asarray(gains, dtype=np.float64), 1, 2))


def set_correlations(gains: npt.ArrayLike) -> Floats:
    """For each model, r between sets over the benchmarks: [models, sets, sets] (Figure 3)."""
    return correlations(gains)


def lower_triangle(matrices: npt.ArrayLike) -> Floats:
    """The values below the diagonal of [..., n, n], row by row: [..., n (n - 1) / 2]."""
    square = np.asarray(matrices, dtype=np.float64)
    below: Floats = square[..., *np.tril_indices(square.shape[-1], -1)]
    return below


def structure_agreement(matrices: npt.ArrayLike) -> Floats:
    """r between models of the lower triangles of their [n, n] matrices: [models, models] (Figure 3c)."""
    return correlations(lower_triangle(matrices))


@dataclass(frozen=True)
class PairedTest:
    """A paired t-test over the pairs of models, as the paper makes it: it takes dependent pairs as independent."""

    t: float
    p: float
    pairs: int


def paired_t(first: npt.ArrayLike, second: npt.ArrayLike) -> PairedTest:
    """Paired t-test of the lower triangles of two [models, models] matrices (Figure 3d)."""
    from scipy.stats import ttest_rel

    one, two = lower_triangle(first), lower_triangle(second)
    found = ttest_rel(one, two)
    return PairedTest(float(found.statistic), float(found.pvalue), one.size)


def structure_differences(gains: npt.ArrayLike) -> Floats:
    """r(benchmark structure) - r(set structure) of each pair of models: [models, models], diagonal 0."""
    benchmarks = structure_agreement(benchmark_correlations(gains))
    differences = benchmarks - structure_agreement(set_correlations(gains))
    np.fill_diagonal(differences, 0)
    return differences


def mean_over_pairs(matrix: npt.ArrayLike, weights: npt.ArrayLike) -> Floats:
    """Weighted means of a symmetric [models, models] matrix over pairs of different models: [...].

    Args:
        weights: [..., models], such as how often a bootstrap sample draws each model. Pairs of a model with itself,
            which a sample with replacement would hold, do not count.
    """
    values, shares = np.asarray(matrix, dtype=np.float64), np.asarray(weights, dtype=np.float64)
    apart = 1 - np.eye(len(values))
    total = np.einsum("...i,ij,...j->...", shares, values * apart, shares)
    pairs = np.einsum("...i,ij,...j->...", shares, apart, shares)
    result: Floats = total / np.where(pairs > 0, pairs, np.nan)
    return result


def label_contrast(matrix: npt.ArrayLike, labels: Sequence[str], block: Sequence[str] | None = None) -> float:
    """Mean r of pairs with the same label less the mean r of the others; NaN where either has no pair.

    Args:
        matrix: [models, models] correlations.
        labels: of each model, such as its family or language.
        block: if given, only pairs of different blocks count, so that likeness within a block does not.
    """
    same, counted = _pairs(labels, block)
    values = lower_triangle(matrix)
    return _contrast(values, same & counted, ~same & counted)


def weighted_label_contrast(
    matrix: npt.ArrayLike, labels: Sequence[str], weights: npt.ArrayLike, block: Sequence[str] | None = None
) -> float:
    """`label_contrast` of a bootstrap sample that draws the models with these weights [models].

    A pair counts by the product of its models' weights; pairs of a model with itself do not count.
    """
    same, counted = _pairs(labels, block)
    shares = np.asarray(weights, dtype=np.float64)
    rows, columns = np.tril_indices(shares.size, -1)
    pairs, values = shares[rows] * shares[columns] * counted, lower_triangle(matrix)
    inside, outside = pairs * same, pairs * ~same
    if not inside.any() or not outside.any():
        return float("nan")
    return float(inside @ values / inside.sum() - outside @ values / outside.sum())


def label_contrast_null(
    matrix: npt.ArrayLike, labels: Sequence[str], seed: int, block: Sequence[str] | None = None
) -> tuple[Floats, float]:
    """`label_contrast` under random permutations of the labels over the models, and the two-sided p.

    A Mantel test: whole rows and columns are exchanged, never single pairs, as pairs of one model depend on each other.
    """
    rng = np.random.default_rng(seed)
    _, codes = np.unique(np.asarray(labels), return_inverse=True)
    orders = rng.random((PERMUTATIONS, codes.size)).argsort(axis=1)
    _, counted = _pairs(labels, block)
    rows, columns = np.tril_indices(codes.size, -1)
    same = codes[orders][:, rows] == codes[orders][:, columns]
    values = lower_triangle(matrix)
    inside, outside = same & counted, ~same & counted
    with np.errstate(invalid="ignore", divide="ignore"):
        null = (inside @ values) / inside.sum(axis=1) - (outside @ values) / outside.sum(axis=1)
    null = null[np.isfinite(null)]
    return null, permutation_p(null, label_contrast(matrix, labels, block))


def leaf_order(matrix: npt.ArrayLike) -> tuple[list[int], Floats]:
    """Average linkage on 1 - r: the order of the leaves, and scipy's linkage matrix (dendrogram of Figure 2c)."""
    from scipy.cluster.hierarchy import leaves_list, linkage, optimal_leaf_ordering
    from scipy.spatial.distance import squareform

    distances = np.clip(1 - np.nan_to_num(np.asarray(matrix, dtype=np.float64)), 0, 2)
    np.fill_diagonal(distances, 0)
    condensed = squareform((distances + distances.T) / 2, checks=False)
    tree: Floats = optimal_leaf_ordering(linkage(condensed, "average"), condensed)
    return [int(leaf) for leaf in leaves_list(tree)], tree


def _pairs(labels: Sequence[str], block: Sequence[str] | None) -> tuple[npt.NDArray[np.bool_], ...]:
    names = np.asarray(labels)
    rows, columns = np.tril_indices(len(names), -1)
    same = names[rows] == names[columns]
    if block is None:
        return same, np.ones(same.size, dtype=bool)
    blocks = np.asarray(block)
    return same, blocks[rows] != blocks[columns]


def _contrast(values: Floats, first: npt.NDArray[np.bool_], second: npt.NDArray[np.bool_]) -> float:
    if not first.any() or not second.any():
        return float("nan")
    return float(values[first].mean() - values[second].mean())
