"""The total order of the weights, and which of them a cut restores: pure functions of arrays.

Every weight has an integer key in [0, 2^31). Non-negative float32 numbers order like their bit patterns, so
the key of the order "top" is the bit pattern of the change; "bottom" mirrors it; "smallest-base" mirrors the bit
pattern of the absolute base weight; "shuffled" is "top" with shuffled updates; "random" hashes seed, parameter name
and position, and so does not depend on sharding.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from sftlab.weights.bits import Raw, code_of, raw_view, widen
from sftlab.weights.change import Floats, change_by, change_of
from sftlab.weights.cut import Cut, Ranking
from sftlab.weights.draws import random_keys
from sftlab.weights.regions import in_region
from sftlab.weights.shuffle import shuffled

if TYPE_CHECKING:
    import torch

Keys = NDArray[np.int32]
Mask = NDArray[np.bool_]
LARGEST_KEY = 2**31 - 1
_LARGEST_FINITE = 0x7F7FFFFF


def ranking_keys(ranking: Ranking, name: str, start: int, values: Floats) -> Keys:
    """Keys of a stretch of the flattened parameter `name` that begins at `start`; the largest comes first.

    values: float32 [n], finite: base weights for "smallest-base", else changes by the ranking's measure (those with
    shuffled updates for "shuffled"; any for "random"). Returns int32 [n], which may share the memory of `values`.
    """
    if ranking.order == "random":
        return random_keys(ranking.seed, name, start, values.size)
    bits = values.view(np.int32)
    if ranking.order in ("top", "shuffled"):
        return bits
    return _LARGEST_FINITE - (bits & LARGEST_KEY)  # the sign bit of a base weight takes no part


def mark(keys: Keys, name: str, start: int, cut: Cut, out: Mask | None = None) -> Mask:
    """Which weights of a stretch the cut restores: bool [n]. `keys` as `ranking_keys` returns them."""
    marked = np.empty(keys.size, dtype=np.bool_) if out is None else out
    ties = keys.size if name < cut.tie_name else 0  # how many of the stretch are before the boundary
    if name == cut.tie_name:
        ties = min(max(cut.tie_position - start, 0), keys.size)
    np.greater_equal(keys[:ties], cut.threshold, out=marked[:ties])
    np.greater(keys[ties:], cut.threshold, out=marked[ties:])
    return marked


def mix(marked: Mask, difference: Raw, tuned: Raw, out: Raw) -> Raw:
    """Base bits where marked, tuned bits elsewhere. marked: bool [n]; all others: raw bits [n].

    difference: base XOR tuned. Arithmetic on bits in place of `where`, which branches on every element and
    takes ten times as long on a random mask.
    """
    np.copyto(out, marked)
    np.multiply(out, difference, out=out)
    return np.bitwise_xor(out, tuned, out=out)


def is_restored_mask(name: str, base: torch.Tensor, tuned: torch.Tensor, cut: Cut) -> torch.Tensor:
    """Which weights of the parameter `name` the cut restores: bool of the parameter's shape.

    base, tuned: bfloat16, float16 or float32 tensors of one shape, contiguous.
    """
    import torch

    if not in_region(name, cut.region, cut.layers):
        return torch.zeros(base.shape, dtype=torch.bool)
    old, new = (
        widen(raw_view(tensor), code_of(tensor), np.empty(tensor.numel(), dtype=np.float32))
        for tensor in (base, tuned)
    )
    if cut.order == "smallest-base":
        values = old
    elif cut.order == "shuffled":
        updates = shuffled(cut.seed, name, new - old)
        values = change_of(cut.measure, old, updates)
    else:
        values = change_by(cut.measure, old, new)
    keys = ranking_keys(cut.ranking, name, 0, values)
    return torch.from_numpy(mark(keys, name, 0, cut)).reshape(base.shape)
