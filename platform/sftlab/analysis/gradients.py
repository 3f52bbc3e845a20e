"""Gradients of single facts: their norm, their direction, and how much of them falls on chosen weights.

All arrays are [facts, parts]: sums over the weights of a part of the model, such as one module of one layer. A group of
parts is a list of columns, and the sums of a group are the sums of its columns.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]


class Mean(NamedTuple):
    """A mean over facts and its standard error; None of a single fact."""

    value: float
    error: float | None


def norms(squared: Floats, group: Sequence[int]) -> Floats:
    """L2 norm of every gradient within a group: [facts]. squared: sums of g^2."""
    found: Floats = np.sqrt(squared[:, group].sum(axis=1))
    return found


def cosines(
    squared: Floats, along: Floats, size: Floats, group: Sequence[int], known: Sequence[int], facts: int
) -> Floats:
    """Cosine of every gradient with the mean gradient of the known facts: [facts]; NaN where one of them is zero.

    The mean of a known fact's gradient leaves the fact out: with itself in the mean its cosine would be above 0 even
    for gradients that have nothing in common.

    Args:
        squared: sums of g^2.
        along: sums of g m, with the mean m of the `facts` known gradients.
        size: sums of m^2: [parts].
        group: the columns that count.
        known: the rows of the known facts, which m is the mean of.
        facts: number of the known facts.
    """
    own, dots = squared[:, group].sum(axis=1), along[:, group].sum(axis=1)
    mean = np.full(len(own), size[list(group)].sum())
    rows = list(known)
    # Of the sum of the others, n m - g; its length is of no consequence to the cosine.
    mean[rows] = facts**2 * mean[rows] - 2 * facts * dots[rows] + own[rows]
    dots[rows] = facts * dots[rows] - own[rows]
    scale = np.sqrt(np.maximum(mean, 0.0) * own)
    return _ratio(dots, scale)


def shares(within: Floats, squared: Floats, group: Sequence[int]) -> Floats:
    """Share of each fact's squared gradient on the chosen weights of a group: [facts]; NaN of a zero gradient.

    within: sums of g^2 over the chosen weights of each part.
    """
    return _ratio(within[:, group].sum(axis=1), squared[:, group].sum(axis=1))


def _ratio(part: Floats, whole: Floats) -> Floats:
    found: Floats = np.divide(part, whole, out=np.full(len(whole), np.nan), where=whole > 0)
    return found


def mean(values: Floats) -> Mean | None:
    """The mean of the values that are numbers; None where there is none."""
    numbers = values[~np.isnan(values)]
    if not numbers.size:
        return None
    error = float(numbers.std(ddof=1) / np.sqrt(numbers.size)) if numbers.size > 1 else None
    return Mean(float(numbers.mean()), error)
