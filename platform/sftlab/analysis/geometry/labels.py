"""How well labels of points, such as their data set or model family, agree with the points or with other labels."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from sftlab.analysis.geometry.neighbours import Floats, Indices, Neighbours, square_distances

Groups = Sequence[Hashable]


@dataclass(frozen=True)
class Share:
    """A share in [0, 1] of points, and the share that random labels with these numbers would give on average."""

    share: float
    chance: float


@dataclass(frozen=True)
class SquareDistances:
    """Means of the squared distances of pairs of points with the same label, and with different ones; NaN for none."""

    within: float
    between: float


def adjusted_rand_index(one: Groups, other: Groups) -> float:
    """Agreement of two groupings of the same points (Hubert and Arabie 1985): 1 for equal ones, 0 by chance."""
    codes, others = label_codes(one), label_codes(other)
    assert codes.size == others.size
    table = np.zeros((codes.max(initial=-1) + 1, others.max(initial=-1) + 1), dtype=np.int64)
    np.add.at(table, (codes, others), 1)
    both, rows, columns = (_pairs(numbers) for numbers in (table, table.sum(axis=1), table.sum(axis=0)))
    every = _pairs(np.array([codes.size]))
    if rows == columns and (rows == both or every == 0):  # the same grouping
        return 1.0
    expected = rows * columns / every
    return (both - expected) / ((rows + columns) / 2 - expected)


def neighbour_consistency(found: Neighbours, labels: Groups, k: int) -> dict[Hashable, float]:
    """Label -> mean over its points of the share of their k nearest neighbours that have the label too."""
    codes = label_codes(labels)
    assert codes.size == found.points and 1 <= k <= found.k
    same = (codes[found.indices[:, :k]] == codes[:, None]).mean(axis=1)
    return {label: float(same[codes == code].mean()) for code, label in enumerate(dict.fromkeys(labels))}


def nearest_share(found: Neighbours, labels: Groups) -> Share:
    """Share of the points whose nearest neighbour has the same label."""
    codes = label_codes(labels)
    same = codes[found.indices[:, 0]] == codes
    numbers = np.bincount(codes)
    return Share(float(same.mean()), _pairs(numbers) / _pairs(np.array([codes.size])))


def silhouette(points: npt.ArrayLike, labels: Groups) -> float:
    """The mean silhouette of all points (Rousseeuw 1987), from -1 to 1; 0 for the only point of a label.

    NaN for one label alone, where there are no other points to compare with.
    """
    given, codes = np.asarray(points, dtype=np.float64), label_codes(labels)
    if codes.max(initial=0) == 0:
        return float("nan")
    total = 0.0
    for start, squares in square_distances(given - given.mean(axis=0)):
        rows = np.arange(len(squares))
        squares[rows, start + rows] = 0.0  # a point is at distance 0 of itself, whatever the rounding
        total += silhouettes(np.sqrt(squares), codes, start)
    return total / codes.size


def silhouettes(distances: Floats, codes: Indices, start: int = 0) -> float:
    """The sum of the silhouettes of the points `start`, start + 1, ..., from their distances to all points.

    codes: int64 [points], the label of every point; two labels or more.
    """
    numbers = np.bincount(codes)
    mine, rows = codes[start : start + len(distances)], np.arange(len(distances))
    sums = distances @ np.eye(numbers.size)[codes]
    own = sums[rows, mine] / np.maximum(numbers[mine] - 1, 1)
    means = sums / numbers
    means[rows, mine] = np.inf
    nearest = means.min(axis=1)
    largest = np.maximum(own, nearest)
    scores = np.divide(nearest - own, largest, out=np.zeros(len(own)), where=largest > 0)
    return float(scores[numbers[mine] > 1].sum())


def square_distances_by_label(points: npt.ArrayLike, labels: Groups) -> SquareDistances:
    """Mean squared distances within and between labels: from sums over labels, without a table of all pairs."""
    given, codes = np.asarray(points, dtype=np.float64), label_codes(labels)
    given = given - given.mean(axis=0)
    groups = [given[codes == code] for code in range(codes.max() + 1)]
    within, pairs = sum(map(_sum_of_squares, groups)), _pairs(np.bincount(codes))
    every = _pairs(np.array([codes.size]))
    between = _sum_of_squares(given) - within
    return SquareDistances(
        within / pairs if pairs else float("nan"),
        between / (every - pairs) if every > pairs else float("nan"),
    )


def _sum_of_squares(points: Floats) -> float:
    """Sum of the squared distances of all pairs of points."""
    centred = points - points.mean(axis=0)
    return len(points) * float(np.sum(centred * centred))


def label_codes(labels: Groups) -> Indices:
    """Labels as numbers, in the order in which they come first."""
    numbers = {label: number for number, label in enumerate(dict.fromkeys(labels))}
    return np.array([numbers[label] for label in labels], dtype=np.int64)


def _pairs(numbers: npt.NDArray[np.int64]) -> int:
    """Pairs within groups of these sizes."""
    return int((numbers * (numbers - 1) // 2).sum())
