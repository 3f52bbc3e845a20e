"""Nearest neighbours of all points, exactly, in memory that does not grow with the square of their number."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Indices = npt.NDArray[np.int64]

_BLOCK = 256  # points whose distances to all others are held at a time
_HELD = 1 << 22  # coordinates of neighbours held at a time


@dataclass(frozen=True)
class Neighbours:
    """The nearest neighbours of every point, the nearest first; a point is not its own neighbour.

    distances: float64 [points, k]; indices: int64 [points, k]. Equal distances are ordered by index.
    """

    distances: Floats
    indices: Indices

    @property
    def points(self) -> int:
        return len(self.distances)

    @property
    def k(self) -> int:
        return int(self.distances.shape[1])


def distinct(points: npt.ArrayLike) -> tuple[Floats, Indices]:
    """The points without repetitions, in their order, and the index of each in `points`.

    Points that are equal have a distance of 0, at which densities and ratios of distances are not defined.
    """
    given = np.asarray(points, dtype=np.float64)
    first = np.sort(np.unique(given, axis=0, return_index=True)[1])
    return given[first], first.astype(np.int64)


def nearest_neighbours(points: npt.ArrayLike, k: int) -> Neighbours:
    """The k nearest neighbours of every point by Euclidean distance, or all others where there are fewer.

    points: [points, dimensions], finite. The candidates are found by inner products; their distances are then computed
    from differences, which loses no digits for near points.
    """
    given = np.asarray(points, dtype=np.float64)
    assert given.ndim == 2 and np.isfinite(given).all(), "points must be a finite matrix"
    given = given - given.mean(axis=0)  # smaller norms, so that inner products lose fewer digits
    k = min(k, len(given) - 1)
    assert k >= 1, "neighbours need at least two points"
    distances, indices = np.empty((len(given), k)), np.empty((len(given), k), dtype=np.int64)
    for start, squares in square_distances(given):
        rows = np.arange(len(squares))
        squares[rows, start + rows] = np.inf
        near = np.sort(np.argpartition(squares, k - 1, axis=1)[:, :k], axis=1)
        exact = _exact(given, start, near)
        order = np.argsort(exact, axis=1, kind="stable")
        stop = start + len(squares)
        distances[start:stop] = np.take_along_axis(exact, order, axis=1)
        indices[start:stop] = np.take_along_axis(near, order, axis=1)
    return Neighbours(distances, indices)


def square_distances(points: Floats) -> Iterator[tuple[int, Floats]]:
    """Squared distances of a block of points to all points, with the index of the block's first point."""
    norms = np.einsum("ij,ij->i", points, points)
    for start in range(0, len(points), _BLOCK):
        block = points[start : start + _BLOCK]
        squares = norms[start : start + _BLOCK, None] + norms - 2 * (block @ points.T)
        yield start, np.maximum(squares, 0, out=squares)


def _exact(points: Floats, start: int, near: Indices) -> Floats:
    found = np.empty(near.shape)
    rows = max(1, _HELD // (near.shape[1] * points.shape[1]))
    for at in range(0, len(near), rows):
        part = near[at : at + rows]
        differences = points[part]
        differences -= points[start + at : start + at + len(part), None]
        found[at : at + rows] = np.sqrt(np.einsum("ijk,ijk->ij", differences, differences))
    return found
