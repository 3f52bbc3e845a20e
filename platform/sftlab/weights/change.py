"""How much a weight changed: relative to its size (paper, appendix B.2), or in absolute terms."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from sftlab.weights.cut import Measure

Floats = NDArray[np.float32]
EPSILON = np.float32(1e-8)


def relative_change(
    base: Floats, tuned: Floats, out: Floats | None = None, scratch: Floats | None = None
) -> Floats:
    """r = |s - p| / (|p| + 1e-8) for base weights p and tuned weights s, computed in float32.

    base, tuned: float32 of one shape (`sftlab.weights.bits.widen` makes them, exactly, of bfloat16 and
    float16). out, scratch: optional float32 arrays of that shape to work in, so that a stream of chunks
    allocates nothing; they may be `tuned` and `base` themselves. Returns float32 of that shape, never
    negative; not finite where a weight is not finite. The epsilon is that of the authors' code: the paper's
    formula has none and is undefined where p = 0.
    """
    with np.errstate(all="ignore"):  # weights that are not finite are reported by name elsewhere
        change: Floats = np.subtract(tuned, base, out=out)
        size = np.abs(base, out=scratch)
        np.add(size, EPSILON, out=size)
        np.divide(change, size, out=change)
        # abs last: it also clears the sign of NaN, so that bit patterns stay non-negative
        np.abs(change, out=change)
    return change


def absolute_change(base: Floats, tuned: Floats, out: Floats | None = None) -> Floats:
    """|s - p| for base weights p and tuned weights s, computed in float32; arguments as `relative_change`."""
    with np.errstate(all="ignore"):
        change: Floats = np.subtract(tuned, base, out=out)
    return np.abs(change, out=change)


def change_by(
    measure: Measure, base: Floats, tuned: Floats, out: Floats | None = None, scratch: Floats | None = None
) -> Floats:
    """The change by the measure; arguments as `relative_change`."""
    if measure == "absolute":
        return absolute_change(base, tuned, out)
    return relative_change(base, tuned, out, scratch)


def change_of(measure: Measure, base: Floats, updates: Floats, scratch: Floats | None = None) -> Floats:
    """`change_by` the measure from updates s - p that are known already, such as shuffled ones.

    base, updates: float32 of one shape. updates: is overwritten and returned. scratch: float32 of that shape to work
    in; it may be `base`. A change beyond float32 becomes the largest finite number, as a large update may meet a tiny
    weight that is not its own.
    """
    with np.errstate(all="ignore"):
        if measure == "relative":
            size = np.abs(base, out=scratch)
            np.add(size, EPSILON, out=size)
            np.divide(updates, size, out=updates)
        np.abs(updates, out=updates)
        return np.minimum(updates, np.finfo(np.float32).max, out=updates)
