"""A map of models from the log-likelihoods that they give to the same texts (Oyama et al. 2025, arXiv 2502.16173).

A row is a model, a column a text, an entry the sum of the log-probabilities of the text's tokens. After double
centring, the squared distance of two rows over the number of texts approximates twice their KL divergence.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from sftlab.analysis.geometry.neighbours import Floats

CLIPPED = 0.02


def clipped(likelihoods: npt.ArrayLike, share: float = CLIPPED) -> Floats:
    """The matrix with its lowest `share` of all entries raised to their quantile, so that few texts do not decide."""
    given = np.asarray(likelihoods, dtype=np.float64)
    assert 0 <= share < 1
    lowest = float(np.quantile(given, share))
    raised: Floats = given.clip(min=lowest)
    return raised


def double_centred(likelihoods: npt.ArrayLike) -> Floats:
    """The matrix less the mean of each row (a model's general level), then less that of each column (a text's)."""
    given = np.asarray(likelihoods, dtype=np.float64)
    given = given - given.mean(axis=1, keepdims=True)
    centred: Floats = given - given.mean(axis=0)
    return centred


def likelihood_map(likelihoods: npt.ArrayLike, share: float = CLIPPED) -> Floats:
    """The points of the map: clipped, double-centred."""
    return double_centred(clipped(likelihoods, share))


def divergences(points: npt.ArrayLike) -> Floats:
    """Estimated KL divergences of all pairs of models, in nats: squared distances of map points / (2 x texts)."""
    given = np.asarray(points, dtype=np.float64)
    estimates: Floats = np.square(given[:, None] - given[None]).mean(axis=2) / 2
    return estimates
