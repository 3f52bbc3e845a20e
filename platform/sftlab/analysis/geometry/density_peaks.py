"""Clusters as peaks of the density that stand out from their errors: Advanced Density Peaks.

d'Errico et al. 2021, Information Sciences 560: the density at a point follows from the distance to its k-th neighbour
and the intrinsic dimension. A peak is a cluster where its density exceeds that of the saddle to every other cluster by
more than Z times their errors; else the two are one. Three details are as in DADApy, whose labels the tests hold: a
peak among the neighbours of a denser point is none; a border point must be the nearest of its cluster to the foreign
neighbour; and the densest saddle merges first and keeps the peak that stands out more.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from sftlab.analysis.geometry.neighbours import Floats, Indices, Neighbours

Labels = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Density:
    """log: logarithm of the density at every point, float64 [points]; error: its standard error."""

    log: Floats
    error: Floats


@dataclass(frozen=True)
class _Saddle:
    """The densest border point between two clusters. rank: density less its error, which decides between points."""

    log: float
    error: float
    rank: float


def density(found: Neighbours, dimension: float, k: int = 16) -> Density:
    """The density from the distance to the k-th neighbour (kNN): k points in the ball of that radius."""
    assert 1 <= k <= found.k and dimension > 0
    volume = dimension / 2 * math.log(math.pi) - math.lgamma(dimension / 2 + 1)
    radius = found.distances[:, k - 1]
    assert (radius > 0).all(), "more than k points are equal; leave repetitions out with `distinct`"
    log = math.log(k) - volume - dimension * np.log(radius) - math.log(found.points)
    return Density(log, np.full(found.points, 1 / math.sqrt(k)))


def density_peaks(found: Neighbours, dimension: float, k: int = 16, z: float = 1.6) -> Labels:
    """The cluster of every point, int64 [points], from 0; without a halo.

    found: at least k neighbours. More of them (DADApy takes 1,000) decide the cluster of the points whose k nearest are
    all without one yet. dimension: such as `gride` at n = k. z: how far a peak must stand out, in standard errors.
    """
    at = density(found, dimension, k)
    log = at.log - (at.log - z * at.error).min() + 1  # positive, so that margins are comparable
    rank = log - at.error
    near = found.indices[:, :k]
    centres, denser = _centres(rank, near)
    labels = _assigned(rank, found.indices, centres, denser)
    saddles = _saddles(Density(log, at.error), labels, found.indices, k, set(centres.tolist()))
    parents = _merged(saddles, log[centres], at.error[centres], z)
    return np.unique(parents[labels], return_inverse=True)[1].astype(np.int64)


def _centres(rank: Floats, near: Indices) -> tuple[Indices, Indices]:
    """The peaks, and for every point the densest point that has it among its neighbours and outranks it, if a peak.

    -1 where there is none.
    """
    peak: npt.NDArray[np.bool_] = np.all(rank[near] <= rank[:, None], axis=1)
    denser = np.full(len(rank), -1, dtype=np.int64)
    source, target = np.repeat(np.arange(len(rank)), near.shape[1]), near.ravel()
    outranked = peak[target] & (rank[source] > rank[target])
    for one, other in zip(source[outranked], target[outranked], strict=True):
        if denser[other] < 0 or rank[one] > rank[denser[other]]:
            denser[other] = one
    return np.flatnonzero(peak & (denser < 0)), denser


def _assigned(rank: Floats, indices: Indices, centres: Indices, denser: Indices) -> Labels:
    """From the densest point on, each has the cluster of the nearest point that has one."""
    labels = np.full(len(rank), -1, dtype=np.int64)
    labels[centres] = np.arange(len(centres))
    for point in np.argsort(-rank, kind="stable"):
        if labels[point] < 0:
            around = labels[indices[point]]
            known = np.flatnonzero(around >= 0)
            labels[point] = around[known[0]] if known.size else labels[denser[point]]
    assert (labels >= 0).all(), "a point without a denser neighbour is a peak"
    return labels


def _saddles(
    at: Density, labels: Labels, indices: Indices, k: int, centres: set[int]
) -> dict[tuple[int, int], _Saddle]:
    """The saddle of every pair of clusters that touch each other."""
    rank = at.log - at.error
    found: dict[tuple[int, int], _Saddle] = {}
    for point in range(len(labels)):
        mine = labels[point]
        around = indices[point, :k]
        foreign = around[labels[around] != mine]
        if point in centres or not foreign.size:
            continue
        back = indices[foreign[0]]
        of_mine = back[labels[back] == mine]
        if of_mine.size and of_mine[0] != point:
            continue
        pair = _pair(int(mine), int(labels[foreign[0]]))
        if pair not in found or rank[point] > found[pair].rank:
            found[pair] = _Saddle(float(at.log[point]), float(at.error[point]), float(rank[point]))
    return found


def _merged(saddles: dict[tuple[int, int], _Saddle], log: Floats, error: Floats, z: float) -> Labels:
    """The cluster that each cluster ends in. log, error: of the peaks."""

    def margin(cluster: int, saddle: _Saddle) -> float:
        return float((log[cluster] - saddle.log) / (error[cluster] + saddle.error))

    alive = dict(saddles)
    parents = np.arange(len(log))
    while True:
        weak = [pair for pair, saddle in alive.items() if min(margin(c, saddle) for c in pair) < z]
        if not weak:
            return parents
        pair = max(weak, key=lambda pair: alive[pair].log)  # the first of equals
        saddle = alive.pop(pair)
        keep, drop = pair if margin(pair[0], saddle) >= margin(pair[1], saddle) else pair[::-1]
        parents[parents == drop] = keep
        for touching in [other for other in alive if drop in other]:
            moved = alive.pop(touching)
            joined = _pair(keep, touching[0] if touching[1] == drop else touching[1])
            if joined not in alive or moved.log > alive[joined].log:
                alive[joined] = moved


def _pair(one: int, other: int) -> tuple[int, int]:
    return (one, other) if one < other else (other, one)
