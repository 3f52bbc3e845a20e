"""Where in the network fine-tuning changes weights, and whether that goes with gains (Figures 5a to 5c).

Models of different depth share positions: layer i of L is at (i + 1/2) / L, and values between layers are
interpolated linearly.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import combinations

import numpy as np
import numpy.typing as npt

from sftlab.analysis.effects import Floats, fisher_mean
from sftlab.analysis.predictors import r_by_model

POINTS = 20


def positions(layers: int) -> Floats:
    """[layers], the position of each layer in (0, 1)."""
    found: Floats = (np.arange(layers, dtype=np.float64) + 0.5) / layers
    return found


def on_grid(values: npt.ArrayLike, points: int = POINTS) -> Floats:
    """Values [..., layers] at the positions of a network of `points` layers: [..., points]. Ends are held constant."""
    layers = np.asarray(values, dtype=np.float64)
    at, wanted = positions(layers.shape[-1]), positions(points)
    flat = layers.reshape(-1, layers.shape[-1])
    found: Floats = np.stack([np.interp(wanted, at, row) for row in flat]).reshape(*layers.shape[:-1], points)
    return found


def at_position(values: npt.ArrayLike, position: float) -> Floats:
    """Values [..., layers] at one position of the network, interpolated linearly: [...]. Ends are held constant."""
    layers = np.asarray(values, dtype=np.float64)
    at = positions(layers.shape[-1])
    found: Floats = np.apply_along_axis(lambda row: np.interp(position, at, row), -1, layers)
    return found


def gain_correlations(changes: Mapping[str, npt.ArrayLike], gains: Mapping[str, npt.ArrayLike]) -> Floats:
    """[models, points], Pearson r over the data sets between change and mean gain (Figure 5a).

    changes: of each model [sets, layers]; gains: of each model [sets]. At least three sets.
    """
    rows = []
    for model, change in changes.items():
        by_point = on_grid(change).T  # [points, sets]
        rows.append(r_by_model(by_point, np.asarray(gains[model], dtype=np.float64)[None])[:, 0])
    return np.stack(rows)


def mean_correlation(correlations: npt.ArrayLike) -> Floats:
    """[points], mean over models through Fisher's z."""
    return fisher_mean(np.asarray(correlations, dtype=np.float64), axis=0)


def cross_model(changes: Sequence[npt.ArrayLike]) -> Floats:
    """[points], mean over pairs of models of the r of their changes over data sets (Figure 5c).

    changes: of each model [sets, layers], the same sets in the same order. At least two models.
    """
    grids = [on_grid(change) for change in changes]
    found = []
    for one, other in combinations(grids, 2):
        a, b = one - one.mean(axis=0), other - other.mean(axis=0)
        length = np.sqrt(np.square(a).sum(axis=0) * np.square(b).sum(axis=0))
        found.append((a * b).sum(axis=0) / np.where(length > 0, length, np.nan))
    return fisher_mean(np.stack(found), axis=0)
