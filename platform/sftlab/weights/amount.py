"""How many weights of an order hold a share of the total change: ladders of equal change in place of equal numbers.

A restoration by a share of the change takes back the first weights of its order until the sum of their changes reaches
the share of the region's total: of the sum of |s - p| (l1) or of (s - p)^2 (l2). Sums are float64, and stretches are
summed in their order, so the number of threads does not matter. The search has three passes, like that of
`sftlab.weights.search`: by the high bits of the keys, by the low bits, and among weights of one key.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from threading import local
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from sftlab.weights.cut import ShareOf
from sftlab.weights.reader import Counts, PairReader
from sftlab.weights.search import BINS, LOWS, Search
from sftlab.weights.selection import Keys
from sftlab.weights.stream import Chunk, Progress, chunks, in_order

SHARE_PASSES = 3

Amounts = NDArray[np.float64]
T = TypeVar("T")


@dataclass(frozen=True)
class _Reached:
    """How many weights come before a place in the order, and the sum of their changes."""

    count: int = 0
    amount: float = 0.0


def counts_of_shares(
    search: Search, labels: Sequence[str], share_of: ShareOf, progress: Progress
) -> dict[str, int]:
    """label -> the smallest number of first weights whose summed change reaches that percentage of the total.

    0 for a percentage of 0, and for all where no weight changed. Raises UserError for weights that are not finite.
    """
    reader = _Reader(search, share_of, progress)
    counts, amounts = np.zeros(BINS, dtype=np.int64), np.zeros(BINS)
    for high, weights in reader.each(_by_high_bits):
        counts += high
        amounts += weights
    total = float(np.cumsum(amounts[::-1])[-1])
    wanted = {label: float(Fraction(total) * Fraction(label) / 100) for label in labels}
    places = {
        label: _locate(counts, amounts, _Reached(), target) for label, target in wanted.items() if target > 0
    }
    bins = sorted({index for index, _ in places.values()})
    low_counts, low_amounts = np.zeros((len(bins), LOWS), dtype=np.int64), np.zeros((len(bins), LOWS))
    for high, weights in reader.each(lambda keys, change: _by_low_bits(keys, change, bins)):
        low_counts += high
        low_amounts += weights
    keys: dict[str, tuple[int, _Reached]] = {}
    for label, (index, before) in places.items():
        row = bins.index(index)
        low, reached = _locate(low_counts[row], low_amounts[row], before, wanted[label])
        keys[label] = (index << 16) | low, reached
    return dict.fromkeys(labels, 0) | (_among_ties(reader, keys, wanted) if keys else {})


def _among_ties(
    reader: _Reader, keys: dict[str, tuple[int, _Reached]], wanted: dict[str, float]
) -> dict[str, int]:
    """The number of weights up to where each target is reached among the weights of its key, by name and position."""
    thresholds = sorted({key for key, _ in keys.values()})
    found = {label: reached.count for label, (_, reached) in keys.items()}
    reached = {label: at for label, (_, at) in keys.items()}
    done: set[str] = set()

    def ties(values: Keys, change: Amounts) -> list[Amounts]:
        return [change[values == key] for key in thresholds]

    for parts in reader.each(ties):
        for label, (key, _) in keys.items():
            part = parts[thresholds.index(key)]
            if label in done or not part.size:
                continue
            before = reached[label]
            sums = np.cumsum(np.concatenate(([before.amount], part)))[1:]
            hit = int(np.searchsorted(sums, wanted[label]))
            # With rounded sums a target may be missed by a last bit: then the last weight that changed ends it.
            changed = np.flatnonzero(part)
            last = min(hit, part.size - 1) if hit < part.size else int(changed[-1]) if changed.size else -1
            found[label] = before.count + last + 1 if last >= 0 else found[label]
            reached[label] = _Reached(before.count + part.size, float(sums[-1]))
            if hit < part.size:
                done.add(label)
    return found


def _locate(counts: Counts, amounts: Amounts, before: _Reached, target: float) -> tuple[int, _Reached]:
    """The bin, from the last to the first, in which the target is reached, and what comes before it.

    The last bin with a change where rounding keeps the sum below the target.
    """
    sums = np.cumsum(np.concatenate(([before.amount], amounts[::-1])))
    hit = int(np.searchsorted(sums[1:], target))
    if hit == amounts.size:
        hit = int(np.flatnonzero(amounts[::-1])[-1])
    numbers = np.cumsum(counts[::-1])
    count = before.count + int(numbers[hit] - counts[-1 - hit])
    return amounts.size - 1 - hit, _Reached(count, float(sums[hit]))


def _by_high_bits(keys: Keys, change: Amounts) -> tuple[Counts, Amounts]:
    high = (keys >> 16).astype(np.intp)
    return _counted(high, change, BINS)


def _by_low_bits(keys: Keys, change: Amounts, bins: Sequence[int]) -> tuple[Counts, Amounts]:
    rows = np.full(BINS, -1, dtype=np.intp)
    rows[list(bins)] = np.arange(len(bins))
    row = rows[keys >> 16]
    inside = row >= 0
    places = row[inside] * LOWS + (keys[inside] & (LOWS - 1))
    found = _counted(places, change[inside], len(bins) * LOWS)
    return found[0].reshape(len(bins), LOWS), found[1].reshape(len(bins), LOWS)


def _counted(places: NDArray[np.intp], change: Amounts, size: int) -> tuple[Counts, Amounts]:
    return np.bincount(places, minlength=size), np.bincount(places, change, size).view(np.float64)


class _Reader:
    """Keys and changes of all stretches, computed by threads and given in the order of names and positions."""

    def __init__(self, search: Search, share_of: ShareOf, progress: Progress) -> None:
        self._search, self._share_of, self._progress = search, share_of, progress
        self._local = local()

    def each(self, use: Callable[[Keys, Amounts], T]) -> Iterator[T]:
        """`use` of every stretch. What it returns must share no memory with its arguments."""

        def call(chunk: Chunk) -> T:
            reader = self._thread_reader()
            base, tuned = reader.read(chunk)
            reader.check_finite(chunk, base, tuned)
            change = np.abs(reader.updates(chunk, base, tuned)).astype(np.float64)
            if self._share_of == "l2":
                np.multiply(change, change, out=change)
            found = use(reader.keys(chunk, base, tuned, self._search.ranking), change)
            self._progress.add(base.nbytes + tuned.nbytes)
            return found

        for found in in_order(chunks(self._search.sizes), call):
            self._progress.show()
            yield found

    def _thread_reader(self) -> PairReader:
        if not hasattr(self._local, "reader"):
            self._local.reader = self._search.reader()
        reader: PairReader = self._local.reader
        return reader
