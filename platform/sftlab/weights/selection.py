"""The total order of the weights, and which of them a cut restores: pure functions of tensors.

Every weight has an integer key in [0, 2^31). Non-negative float32 numbers order like their bit patterns, so
the key of the order "top" is the bit pattern of the relative change; "bottom" mirrors it; "random" hashes
seed, parameter name and position, and so does not depend on sharding.
"""

from __future__ import annotations

from hashlib import sha256

import numpy as np
import torch
from torch import Tensor

from sftlab.weights.change import relative_change
from sftlab.weights.cut import Cut, Order
from sftlab.weights.regions import in_region

LARGEST_KEY = 2**31 - 1
_LARGEST_FINITE = 0x7F7FFFFF
_BITS = {1: torch.int8, 2: torch.int16, 4: torch.int32, 8: torch.int64}


def random_keys(seed: int, name: str, start: int, size: int) -> Tensor:
    """Keys of the positions start..start+size of the parameter `name`: int32 [size], uniform in [0, 2^31).

    The finaliser of splitmix64 over a counter whose offset is a SHA-256 of seed and name. int64 wraps around.
    """
    offset = int.from_bytes(sha256(f"{seed}\x1f{name}".encode()).digest()[:8], "little", signed=True)
    x = torch.arange(start, start + size, dtype=torch.int64)
    x = (x + offset) * -7046029254386353131  # 0x9E3779B97F4A7C15
    x = (x ^ ((x >> 30) & (2**34 - 1))) * -4658895280553007687  # 0xBF58476D1CE4E5B9
    x = (x ^ ((x >> 27) & (2**37 - 1))) * -7723592293110705685  # 0x94D049BB133111EB
    return ((x >> 33) & LARGEST_KEY).to(torch.int32)


def ranking_keys(order: Order, seed: int, name: str, start: int, change: Tensor) -> Tensor:
    """Keys of a stretch of the flattened parameter `name` that begins at `start`; the largest comes first.

    change: float32 [n], relative changes, finite. Returns int32 [n]. For "top" the result shares its memory.
    """
    if order == "random":
        return random_keys(seed, name, start, change.numel())
    bits = change.view(torch.int32)
    return bits if order == "top" else _LARGEST_FINITE - bits


def mark(keys: Tensor, name: str, start: int, cut: Cut, out: Tensor | None = None) -> Tensor:
    """Which weights of a stretch the cut restores: bool [n]. `keys` as `ranking_keys` returns them."""
    marked = torch.empty(keys.numel(), dtype=torch.bool) if out is None else out
    ties = keys.numel() if name < cut.tie_name else 0  # how many of the stretch stand before the boundary
    if name == cut.tie_name:
        ties = min(max(cut.tie_position - start, 0), keys.numel())
    # numpy: comparing int32 into bool takes torch 2.13 seven times as long
    source, target = keys.numpy(), marked.numpy()
    np.greater_equal(source[:ties], cut.threshold, out=target[:ties])
    np.greater(source[ties:], cut.threshold, out=target[ties:])
    return marked


def mix(
    marked: Tensor, base: Tensor, tuned: Tensor, out: Tensor | None = None, difference: Tensor | None = None
) -> Tensor:
    """base where marked, tuned elsewhere, to the bit. marked: bool [n]; base, tuned: [n] of one dtype.

    Bit arithmetic in place of torch.where, which branches on every element and is ten times slower on a
    random mask. difference: `bit_difference(base, tuned)`, where it is at hand already.
    """
    kind = _BITS[base.element_size()]
    mixed = torch.empty_like(tuned) if out is None else out
    bits = mixed.view(kind)
    bits.copy_(marked).mul_(bit_difference(base, tuned) if difference is None else difference)
    bits.bitwise_xor_(tuned.view(kind))
    return mixed


def bit_difference(base: Tensor, tuned: Tensor, out: Tensor | None = None) -> Tensor:
    """The bits in which two tensors of one dtype differ, as integers of the same width."""
    kind = _BITS[base.element_size()]
    return torch.bitwise_xor(base.view(kind), tuned.view(kind), out=None if out is None else out.view(kind))


def is_restored_mask(name: str, base: Tensor, tuned: Tensor, cut: Cut) -> Tensor:
    """Which weights of the parameter `name` the cut restores: bool of the parameter's shape."""
    if not in_region(name, cut.region):
        return torch.zeros(base.shape, dtype=torch.bool)
    change = relative_change(base.reshape(-1), tuned.reshape(-1))
    keys = ranking_keys(cut.order, cut.seed, name, 0, change)
    return mark(keys, name, 0, cut).reshape(base.shape)
