"""Seeded draws that depend on the name and the position of a weight alone."""

from __future__ import annotations

from hashlib import sha256

import numpy as np
from numpy.typing import NDArray


def random_keys(seed: int, name: str, start: int, size: int) -> NDArray[np.int32]:
    """Keys of the positions start..start+size of the parameter `name`: int32 [size], uniform in [0, 2^31).

    splitmix64's finaliser over a counter whose offset is a SHA-256 of seed and name. uint64 wraps around.
    """
    offset = int.from_bytes(sha256(f"{seed}\x1f{name}".encode()).digest()[:8], "little")
    x = np.arange(start, start + size, dtype=np.uint64)
    x = (x + np.uint64(offset)) * np.uint64(0x9E3779B97F4A7C15)
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return (x >> np.uint64(33)).astype(np.int32)
