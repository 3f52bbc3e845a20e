"""How much a weight changed, relative to its size (paper, appendix B.2)."""

from __future__ import annotations

import torch
from torch import Tensor

EPSILON = 1e-8


def relative_change(
    base: Tensor, tuned: Tensor, out: Tensor | None = None, scratch: Tensor | None = None
) -> Tensor:
    """r = |s - p| / (|p| + 1e-8) for base weights p and tuned weights s, computed in float32.

    base, tuned: bfloat16, float16 or float32 of one shape. out, scratch: optional float32 tensors of that
    shape to work in, so that a stream of chunks allocates nothing. Returns float32 of that shape, never
    negative; not finite where a weight is not finite. The epsilon is that of the authors' code: the paper's
    formula has none and is undefined where p = 0.
    """
    size = torch.empty(base.shape, dtype=torch.float32) if scratch is None else scratch
    change = torch.empty(base.shape, dtype=torch.float32) if out is None else out
    size.copy_(base)
    change.copy_(tuned).sub_(size)
    size.abs_().add_(EPSILON)
    # abs last: it also clears the sign of NaN, so that bit patterns stay non-negative.
    return change.div_(size).abs_()
