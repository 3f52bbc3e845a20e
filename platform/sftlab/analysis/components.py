"""How many principal components explain the gains, and how many they would explain by accident (Figure 2d)."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]


def explained(gains: npt.ArrayLike) -> Floats:
    """Cumulative share of variance of the components, models as variables: [models], in [0, 1].

    The (set, benchmark) pairs are the observations; columns are centred and not scaled. Where nothing varies
    the shares are NaN.

    Args:
        gains: [models, sets, benchmarks].
    """
    cells = np.asarray(gains, dtype=np.float64)
    return explained_by_columns(cells.reshape(cells.shape[0], -1).T)


def explained_by_columns(table: npt.ArrayLike) -> Floats:
    """Cumulative share of variance of the components of [observations, variables], columns centred: [variables]."""
    values = np.asarray(table, dtype=np.float64)
    values = values - values.mean(axis=0)
    # Eigenvalues of the smaller of the two products are the squared singular values.
    product = values.T @ values if values.shape[0] >= values.shape[1] else values @ values.T
    power = np.clip(np.linalg.eigvalsh(product)[::-1], 0, None)
    total = power.sum()
    shares = np.cumsum(power) / (total if total > 0 else np.nan)
    result: Floats = np.full(values.shape[1], shares[-1])
    result[: shares.size] = shares[: values.shape[1]]
    return result


def sets_shuffled(gains: npt.ArrayLike, rng: np.random.Generator) -> Floats:
    """The sets of each (model, benchmark) in random order, alone for each: agreement of models on sets is gone."""
    cells = np.asarray(gains, dtype=np.float64)
    return np.take_along_axis(cells, rng.random(cells.shape).argsort(axis=1), axis=1)


def explained_null(gains: npt.ArrayLike, seed: int, draws: int = 200) -> Floats:
    """`explained` of gains whose sets are shuffled within model and benchmark: [draws, models].

    Benchmarks keep their level for each model, so the null holds all agreement that is due to them.
    """
    cells = np.asarray(gains, dtype=np.float64)
    rng = np.random.default_rng(seed)
    return np.stack([explained(sets_shuffled(cells, rng)) for _ in range(draws)])


def components_needed(shares: npt.ArrayLike, share: float = 0.9) -> int:
    """The smallest number of components whose cumulative share exceeds `share`; all where none does."""
    values = np.asarray(shares, dtype=np.float64)
    over = np.flatnonzero(values > share)
    return int(over[0]) + 1 if over.size else int(values.size)
