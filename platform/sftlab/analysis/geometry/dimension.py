"""The intrinsic dimension of points from ratios of distances to their neighbours.

GRIDE (Denti et al. 2022, Scientific Reports 12:20005): where points are uniform around each point, the ratio of the
distances to neighbours number 2n and n has a known distribution with the dimension as its one parameter. Larger n look
at larger scales, which noise reaches less. TwoNN (Facco et al. 2017) is the case n = 1.
"""

from __future__ import annotations

import math

import numpy as np
from scipy.optimize import brentq

from sftlab.analysis.geometry.neighbours import Floats, Neighbours

SCALES = (1, 2, 4, 8, 16, 32)


def gride(found: Neighbours, near: int) -> float:
    """The maximum likelihood estimate of the dimension from the neighbours number `near` and 2 x `near`.

    Points at distance 0 of the nearer one take no part, and neither do outliers among the ratios, as in DADApy. NaN
    where fewer than two points are left or all ratios are 1.
    """
    far = 2 * near
    assert near >= 1 and far <= found.k, f"needs {far} neighbours of every point, has {found.k}"
    logs = _log_ratios(found.distances[:, near - 1], found.distances[:, far - 1])
    count, total = len(logs), float(logs.sum())
    if count < 2 or total == 0.0:
        return math.nan
    if near == 1:
        return (count - 1) / total  # TwoNN

    def slope(dimension: float) -> float:
        """Derivative of the log-likelihood; count - 1 in place of count makes the estimate unbiased for n = 1."""
        between = float(np.sum(logs / -np.expm1(-dimension * logs)))
        return (count - 1) / dimension + (far - near - 1) * between - (far - 1) * total

    upper = 1.0
    while slope(upper) > 0:
        upper *= 2
    return float(brentq(slope, 1e-8, upper, xtol=1e-12))


def two_nn(found: Neighbours) -> float:
    """The estimate from the two nearest neighbours: `gride` with the neighbours 1 and 2."""
    return gride(found, 1)


def dimension_by_scale(found: Neighbours) -> dict[int, float]:
    """`gride` at every scale of SCALES for which there are enough neighbours."""
    return {near: gride(found, near) for near in SCALES if 2 * near <= found.k}


def _log_ratios(near: Floats, far: Floats) -> Floats:
    some = near > 0
    ratios = far[some] / near[some]
    ratios = ratios[ratios > 1]
    if not ratios.size:
        return ratios
    high, middle = np.percentile(ratios, [95, 50])
    logs: Floats = np.log(ratios[ratios < 20 * (high - middle) + middle])
    return logs
