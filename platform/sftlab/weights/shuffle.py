"""A seeded permutation of the weights of a parameter that can be applied one stretch at a time.

It is the null model of every statement on where a change is: the updates of a parameter stay, and which weight got
which update is left to chance. Every update is used exactly once.

A parameter of n weights has n // STRETCH whole stretches and perhaps a shorter last one. Two draws make the
permutation. First, the whole stretches change places; the last one keeps its place. Second, the updates within each
stretch are shuffled: one random order of positions, the same for all stretches of a size, is rotated by a random
offset of the stretch. A parameter below STRETCH weights is shuffled as a whole. All draws are hashes (`random_keys`),
so the result depends on seed, parameter name and size alone, not on threads, shards or versions of numpy.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sftlab.weights.draws import random_keys
from sftlab.weights.stream import CHUNK

STRETCH = CHUNK  # a part of the definition: another size is another permutation

Positions = NDArray[np.int64]
Array = NDArray[Any]


def source_of_stretch(seed: int, name: str, size: int, start: int) -> tuple[int, int]:
    """Which stretch gives its updates to the one that begins at `start`: where it begins and ends."""
    assert start % STRETCH == 0 and 0 <= start < size
    stop = min(start + STRETCH, size)
    if stop - start < STRETCH:
        return start, stop
    source = int(_stretch_order(seed, name, size // STRETCH)[start // STRETCH]) * STRETCH
    return source, source + STRETCH


def shuffle_stretch(seed: int, name: str, start: int, source: Array, out: Array) -> Array:
    """The updates of the stretch that begins at `start`, from those of its source (`source_of_stretch`).

    source, out: arrays of one size and type that share no memory. Returns `out`.
    """
    size = source.size
    offset = int(random_keys(seed, f"{name}\x1foffsets", start // STRETCH, 1)[0]) % size
    positions = _positions(seed, size, STRETCH)
    np.take(source, positions[: size - offset], out=out[offset:], mode="clip")
    np.take(source, positions[size - offset :], out=out[:offset], mode="clip")
    return out


def shuffled(seed: int, name: str, updates: Array) -> Array:
    """The updates of a whole flattened parameter, shuffled."""
    out = np.empty_like(updates)
    for start in range(0, updates.size, STRETCH):
        first, end = source_of_stretch(seed, name, updates.size, start)
        shuffle_stretch(seed, name, start, updates[first:end], out[start : start + end - first])
    return out


@lru_cache(maxsize=1024)
def _stretch_order(seed: int, name: str, count: int) -> Positions:
    return np.argsort(random_keys(seed, f"{name}\x1fstretches", 0, count), kind="stable")


@lru_cache(maxsize=16)
def _positions(seed: int, size: int, stretch: int) -> Positions:
    """A random order of the positions below `size`: that of a whole stretch without the others."""
    order = np.argsort(random_keys(seed, "\x1fpositions", 0, stretch), kind="stable")
    return order if size == stretch else order[order < size]
