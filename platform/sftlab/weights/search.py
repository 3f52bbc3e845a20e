"""The exact search for the cuts of a ladder: three streamed passes over two models, in constant memory.

Keys have 31 bits. Pass 1 counts them by their high 16 bits; that says in which bin each cut falls. Pass 2
counts the low 16 bits within those bins; that gives each cut's threshold, exactly. Pass 3 counts, for every
parameter, the keys above each threshold and equal to it; that gives the boundary among ties and the
distribution over the model. All tallies are integers, so neither threads nor sharding can change the
result.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sftlab.errors import UserError
from sftlab.weights.cut import Ranking
from sftlab.weights.reader import Counts, PairReader
from sftlab.weights.selection import LARGEST_KEY, Keys
from sftlab.weights.shards import Checkpoint
from sftlab.weights.stream import CHUNK, Chunk, Progress, Worker, chunks, walk

BINS = 1 << 15
LOWS = 1 << 16
_NOT_FINITE = 0x7F80  # the bins from here on hold infinities and NaN


@dataclass(frozen=True)
class Threshold:
    """The first `count` weights of an order are the `above` with a key above `key` and `ties` of those
    equal.
    """

    count: int
    key: int
    above: int

    @property
    def ties(self) -> int:
        return self.count - self.above


@dataclass(frozen=True)
class Histogram:
    """Counts of the keys of one order by their high 16 bits, and by their low 16 bits in some of those
    bins.
    """

    high: Counts  # [BINS]
    low: Mapping[int, Counts]  # bin -> [LOWS]

    def threshold(self, count: int) -> Threshold:
        """Where the `count` largest keys end."""
        if count == 0:
            return Threshold(0, LARGEST_KEY, 0)
        high, above = locate(self.high, count)
        low, within = locate(self.low[high], count - above)
        return Threshold(count, (high << 16) | low, above + within)


def locate(counts: Counts, rank: int) -> tuple[int, int]:
    """The bin that holds the `rank`-th largest entry (from 1), and how many entries are in the bins above
    it.
    """
    reached = np.cumsum(counts[::-1])
    index = int(np.searchsorted(reached, rank))
    return len(counts) - 1 - index, int(reached[index] - counts[-1 - index])


class HighPass(Worker):
    """Pass 1: counts of the high bits of the relative change and, unless it is that, of the order's own key.

    Also sums the low bits by bin: with these sums the sum of all changes in a bin is known exactly.
    """

    def __init__(self, reader: PairReader, inside: frozenset[str], ranking: Ranking) -> None:
        self._reader = reader
        self._inside, self._ranking = inside, ranking
        self._weights = np.empty(CHUNK, dtype=np.float64)
        self._low = np.empty(CHUNK, dtype=np.int32)
        self.change, self.low_sums, self.keys = (np.zeros(BINS, dtype=np.int64) for _ in range(3))

    def __call__(self, chunk: Chunk) -> int:
        base, tuned = self._reader.read(chunk)
        if chunk.name not in self._inside:
            self._reader.check_finite(chunk, base, tuned)
            return base.nbytes + tuned.nbytes
        change = self._reader.change(chunk, base, tuned)
        counts, low_sums = self._count(change.view(np.int32))
        if counts[_NOT_FINITE:].any():
            self._reader.check_finite(chunk, base, tuned)
            raise UserError(
                (
                    f"{chunk.name} has weights so far from the base model's that their relative change "
                    "exceeds float32"
                ),
                place=self._reader.models[1].path,
                advice="the model is broken, use a sound checkpoint.",
            )
        self.change += counts
        self.low_sums += low_sums
        if not self._ranking.is_relative_change:
            keys = self._reader.keys(chunk, base, tuned, self._ranking, change)
            self.keys += np.bincount(self._reader.high_bits(keys), minlength=BINS)
        return base.nbytes + tuned.nbytes

    def _count(self, bits: Keys) -> tuple[Counts, Counts]:
        """Keys by bin, and the sums of their low bits, in one sweep: a key weighs 2^34 plus its low bits.

        A chunk has at most 2^18 keys of at most 2^16 - 1 each, so the sums keep clear of the counts and all
        stay below 2^53, where float64 is exact.
        """
        low = np.bitwise_and(bits, LOWS - 1, out=self._low[: bits.size])
        weights = self._weights[: bits.size]
        np.copyto(weights, low)
        np.add(weights, 2.0**34, out=weights)
        both = np.bincount(self._reader.high_bits(bits), weights=weights, minlength=BINS).astype(np.int64)
        return both >> 34, both & (2**34 - 1)


class _LowCounts:
    """Counts of low bits within chosen bins, gathered from the few keys there."""

    def __init__(self, bins: Sequence[int]) -> None:
        self._chosen = np.zeros(BINS, dtype=np.bool_)
        self._chosen[bins] = True
        self._row = np.zeros(BINS, dtype=np.int64)
        self._row[bins] = np.arange(len(bins))
        self._mask = np.empty(CHUNK, dtype=np.bool_)
        self._waiting: list[Counts] = []
        self._size = 0
        self.counts = np.zeros(len(bins) * LOWS, dtype=np.int64)

    def add(self, keys: Keys, high: Counts) -> None:
        mask = np.take(self._chosen, high, out=self._mask[: keys.size], mode="clip")
        found = keys[mask]
        self._waiting.append(self._row[found >> 16] * LOWS + (found & (LOWS - 1)))
        self._size += found.size
        if self._size >= 4 * CHUNK:
            self.flush()

    def flush(self) -> None:
        if self._waiting:
            self.counts += np.bincount(np.concatenate(self._waiting), minlength=self.counts.size)
        self._waiting, self._size = [], 0


class LowPass(Worker):
    """Pass 2: counts of the low bits in the bins where a cut falls, for the relative change and for the
    order's key.
    """

    def __init__(
        self, reader: PairReader, change_bins: Sequence[int], key_bins: Sequence[int], ranking: Ranking
    ) -> None:
        self._reader = reader
        self._ranking = ranking
        self.change = _LowCounts(change_bins)
        self.keys = _LowCounts(key_bins)

    def __call__(self, chunk: Chunk) -> int:
        base, tuned = self._reader.read(chunk)
        change = self._reader.change(chunk, base, tuned)
        bits = change.view(np.int32)
        self.change.add(bits, self._reader.high_bits(bits))
        if not self._ranking.is_relative_change:
            keys = self._reader.keys(chunk, base, tuned, self._ranking, change)
            self.keys.add(keys, self._reader.high_bits(keys))
        return base.nbytes + tuned.nbytes

    def finish(self) -> None:
        self.change.flush()
        self.keys.flush()


class TiePass(Worker):
    """Pass 3: for every parameter, how many keys are above each threshold and how many are equal to it."""

    def __init__(self, reader: PairReader, thresholds: Sequence[int], ranking: Ranking) -> None:
        self._reader = reader
        self._thresholds, self._ranking = thresholds, ranking
        self._mark = np.empty(CHUNK, dtype=np.bool_)
        self.counts: dict[str, Counts] = {}  # name -> [2, thresholds]

    def __call__(self, chunk: Chunk) -> int:
        base, tuned = self._reader.read(chunk)
        keys = self._reader.keys(chunk, base, tuned, self._ranking)
        mark = self._mark[: keys.size]
        counts = self.counts.setdefault(chunk.name, np.zeros((2, len(self._thresholds)), dtype=np.int64))
        for index, threshold in enumerate(self._thresholds):
            counts[0, index] += np.count_nonzero(np.greater(keys, threshold, out=mark))
            counts[1, index] += np.count_nonzero(np.equal(keys, threshold, out=mark))
        return base.nbytes + tuned.nbytes


@dataclass(frozen=True)
class Search:
    """A pair of models, the parameters of the region with their sizes, and an order to rank them in.

    shuffle: a seed, to search as if the updates of each parameter were shuffled; None for the updates as they are.
    """

    pair: tuple[Checkpoint, Checkpoint]
    sizes: Mapping[str, int]
    ranking: Ranking
    shuffle: int | None = None

    def reader(self) -> PairReader:
        """A new reader, for one thread."""
        return PairReader(*self.pair, self.shuffle)

    def count_high(self, outside: Mapping[str, int], progress: Progress) -> tuple[Counts, Counts, Counts]:
        """Pass 1 over the region, and a check of all other parameters for NaN and infinity.

        Returns the counts of the relative change and of the order's key, and the sums of the change's low
        bits, by bin.
        """
        inside = frozenset(self.sizes)
        workers = walk(
            chunks({**self.sizes, **outside}),
            lambda: HighPass(self.reader(), inside, self.ranking),
            progress,
        )
        change = sum_counts([worker.change for worker in workers])
        same = self.ranking.is_relative_change
        keys = change if same else sum_counts([worker.keys for worker in workers])
        return change, keys, sum_counts([worker.low_sums for worker in workers])

    def count_low(
        self,
        change: Counts,
        change_ranks: Sequence[int],
        keys: Counts,
        ranks: Sequence[int],
        progress: Progress,
    ) -> tuple[Histogram, Histogram]:
        """Pass 2: the histograms of the relative change and of the order's key, fit for the given ranks."""
        same = self.ranking.is_relative_change
        change_bins = _bins(change, [*change_ranks, *(ranks if same else ())])
        key_bins = [] if same else _bins(keys, ranks)
        workers = walk(
            chunks(self.sizes),
            lambda: LowPass(self.reader(), change_bins, key_bins, self.ranking),
            progress,
        )
        changes = Histogram(change, _by_bin(change_bins, [worker.change for worker in workers]))
        if same:
            return changes, changes
        return changes, Histogram(keys, _by_bin(key_bins, [worker.keys for worker in workers]))

    def count_ties(self, thresholds: Sequence[int], progress: Progress) -> dict[str, Counts]:
        """Pass 3: for every parameter, keys above (row 0) and equal to (row 1) each threshold: int64 [2,
        n].
        """
        if not thresholds:
            return {}
        workers = walk(chunks(self.sizes), lambda: TiePass(self.reader(), thresholds, self.ranking), progress)
        empty = np.zeros((2, len(thresholds)), dtype=np.int64)
        return {
            name: sum((worker.counts.get(name, empty) for worker in workers), empty) for name in self.sizes
        }

    def position_after(self, name: str, key: int, ties: int) -> int:
        """The position just behind the `ties`-th weight (from 1) of parameter `name` that has this key."""
        reader = self.reader()
        for chunk in chunks({name: self.sizes[name]}):
            keys = reader.keys(chunk, *reader.read(chunk), self.ranking)
            places = np.flatnonzero(keys == key)
            if ties <= places.size:
                return chunk.start + int(places[ties - 1]) + 1
            ties -= places.size
        raise AssertionError(f"{name} changed while it was read")


def tie_boundary(
    counts: Mapping[str, Counts], index: int, ties: int
) -> tuple[dict[str, int], tuple[str, int] | None]:
    """How the `ties` weights at a threshold are shared out among parameters, by name: the first come first.

    Returns the number taken of each parameter, and the last one concerned with its number (None for no ties).
    """
    taken, last = {}, None
    for name in sorted(counts):
        take = min(ties, int(counts[name][1, index]))
        taken[name] = take
        ties -= take
        if take:
            last = (name, take)
    assert ties == 0
    return taken, last


def sum_of_largest(change: Histogram, low_sums: Counts, threshold: Threshold | None = None) -> float:
    """Sum in float64 of the largest changes down to a threshold; of all without one.

    The float32 numbers of a bin share exponent and high mantissa bits, so their sum is
    count x first + (sum of low bits) x spacing: nothing is rounded before the sums over bins.
    """
    first, spacing = _bin_values()
    sums = change.high * first + low_sums * spacing
    if threshold is None:
        return float(sums.sum())
    if threshold.count == 0:
        return 0.0
    high, low = threshold.key >> 16, threshold.key & (LOWS - 1)
    values = first[high] + np.arange(LOWS) * spacing[high]
    within = (change.low[high] * values)[low + 1 :].sum() + threshold.ties * values[low]
    return float(sums[high + 1 :].sum() + within)


def sum_counts(parts: Sequence[Counts]) -> Counts:
    """The sum of the workers' tallies, gathered in the first of them."""
    for part in parts[1:]:
        np.add(parts[0], part, out=parts[0])
    return parts[0]


def _bin_values() -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """First number of every finite bin and the spacing of float32 within it, in float64; 0 beyond."""
    starts = np.arange(_NOT_FINITE, dtype=np.int32) << 16
    first, second = (bits.view(np.float32).astype(np.float64) for bits in (starts, starts + 1))
    beyond = (0, BINS - _NOT_FINITE)
    return np.pad(first, beyond), np.pad(second - first, beyond)


def _bins(counts: Counts, ranks: Sequence[int]) -> list[int]:
    return sorted({locate(counts, rank)[0] for rank in ranks if rank})


def _by_bin(bins: Sequence[int], parts: Sequence[_LowCounts]) -> dict[int, Counts]:
    total = sum_counts([part.counts for part in parts]).reshape(len(bins), LOWS)
    return dict(zip(bins, total, strict=True))
