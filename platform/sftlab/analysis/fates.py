"""What becomes of facts: right or wrong after tuning, then right or wrong after restoring."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import NamedTuple, TypeVar

import numpy as np
import numpy.typing as npt

Key = TypeVar("Key", bound=Hashable)


class Fates(NamedTuple):
    """Numbers of facts by what becomes of them. Facts of bucket 0 that are `kept` are learned.

    kept: right after tuning and after restoring. undone: right after tuning alone. recovered: wrong after tuning, right
    after restoring. lost: wrong after both.
    """

    kept: int
    undone: int
    recovered: int
    lost: int

    @property
    def facts(self) -> int:
        return sum(self)


def fates_by(tuned: npt.ArrayLike, restored: npt.ArrayLike, keys: Sequence[Key | None]) -> dict[Key, Fates]:
    """The fates of the facts of each key, in the order in which keys first occur; facts of the key None are left out.

    tuned, restored: whether the answers of the two models are right, bool [facts].

    >>> fates_by([True, True, False, False], [True, False, True, False], ["a", "b", "b", None])
    {'a': Fates(kept=1, undone=0, recovered=0, lost=0), 'b': Fates(kept=0, undone=1, recovered=1, lost=0)}
    """
    before, after = np.asarray(tuned, np.bool_), np.asarray(restored, np.bool_)
    assert before.shape == after.shape == (len(keys),)
    numbers: dict[Key, int] = {}
    codes = np.array([-1 if key is None else numbers.setdefault(key, len(numbers)) for key in keys], np.int64)
    paths = np.where(before, np.where(after, 0, 1), np.where(after, 2, 3))
    known = codes >= 0
    counts = np.bincount(4 * codes[known] + paths[known], minlength=4 * len(numbers)).reshape(-1, 4)
    return {key: Fates(*counts[number].tolist()) for key, number in numbers.items()}


def together(parts: Sequence[Fates]) -> Fates:
    """The fates of several groups of facts as one."""
    return Fates(*(sum(column) for column in zip(*parts, strict=True))) if parts else Fates(0, 0, 0, 0)


def returns_at(right: Mapping[float, bool]) -> float | None:
    """The first percentage at which an answer is right that is wrong at 0 %; None where there is none.

    right: whether the answer is right, by percentage.

    >>> returns_at({0.0: False, 5.0: True, 1.0: False}), returns_at({0.0: True, 5.0: True})
    (5.0, None)
    """
    if right.get(0.0, True):
        return None
    return min((percent for percent, correct in right.items() if correct), default=None)
