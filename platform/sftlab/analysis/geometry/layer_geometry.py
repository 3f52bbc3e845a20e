"""The geometry of the hidden states of one layer: intrinsic dimension, density peaks, agreement with labels."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy.typing as npt

from sftlab.analysis.geometry.density_peaks import density_peaks
from sftlab.analysis.geometry.dimension import SCALES, dimension_by_scale
from sftlab.analysis.geometry.labels import adjusted_rand_index, neighbour_consistency
from sftlab.analysis.geometry.neighbours import distinct, nearest_neighbours

DENSITY_K = 16  # neighbours of a density, and the scale of the dimension that it takes (Doimo et al. 2024)
NEIGHBOURS = 100  # of each point, at least; clusters of points without a denser neighbour are decided by them
CONSISTENCY_SHARE = 0.3  # neighbours of the consistency, as a share of the points of a label (300 of 1,000)
Z = 1.6
FEWEST = 3  # distinct points


@dataclass(frozen=True)
class LayerGeometry:
    """What is kept of a layer.

    Attributes:
        points: distinct ones.
        dimensions: of each of `SCALES`; NaN where there are too few points.
        clusters: density peaks, and their adjusted Rand index with the labels; None where there are too few points.
        consistency: by label, the share of the nearest neighbours with the same label.
    """

    points: int
    dimensions: tuple[float, ...]
    clusters: int | None
    ari: float | None
    consistency: Mapping[str, float]


def layer_geometry(states: npt.ArrayLike, labels: Sequence[str]) -> LayerGeometry:
    """The geometry of states [points, dimensions] with a label each. Equal states count once, with the first label."""
    points, kept = distinct(states)
    of = [labels[at] for at in kept]
    if len(points) < FEWEST:
        return LayerGeometry(len(points), (math.nan,) * len(SCALES), None, None, {})
    k = max(1, round(CONSISTENCY_SHARE * len(labels) / len(Counter(labels))))
    found = nearest_neighbours(points, max(NEIGHBOURS, k))
    by_scale = dimension_by_scale(found)
    dimension = by_scale.get(DENSITY_K, math.nan)
    clusters = density_peaks(found, dimension, DENSITY_K, Z).tolist() if dimension > 0 else None
    consistency = neighbour_consistency(found, of, min(k, found.k))
    return LayerGeometry(
        len(points),
        tuple(by_scale.get(scale, math.nan) for scale in SCALES),
        None if clusters is None else max(clusters) + 1,
        None if clusters is None else adjusted_rand_index(clusters, of),
        {str(label): share for label, share in consistency.items()},
    )
