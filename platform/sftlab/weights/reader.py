"""Reading a stretch of a base model and of a model tuned from it, and what the weights there are ranked by."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from sftlab.weights.bits import Raw, raw_type, widen
from sftlab.weights.change import Floats, change_by, change_of
from sftlab.weights.cut import Measure, Ranking
from sftlab.weights.pairs import check_finite
from sftlab.weights.selection import Keys, ranking_keys
from sftlab.weights.shards import Checkpoint
from sftlab.weights.shuffle import shuffle_stretch, source_of_stretch
from sftlab.weights.stream import CHUNK, Chunk

Counts = NDArray[np.int64]


class PairReader:
    """Reads matching stretches of two models into buffers of its own and computes their change.

    shuffle: a seed, for the change that the weights would have if the updates of each parameter were shuffled.
    """

    def __init__(self, base: Checkpoint, tuned: Checkpoint, shuffle: int | None = None) -> None:
        self.models = (base, tuned)
        self._shuffle = shuffle
        self._raw, self._source = ([np.empty(CHUNK, dtype=np.uint64) for _ in range(2)] for _ in range(2))
        self._floats: dict[str, list[Floats]] = {}
        self._high = np.empty(CHUNK, dtype=np.int64)  # the type that bincount and take need

    def read(self, chunk: Chunk) -> tuple[Raw, Raw]:
        """The bits of the stretch in the base and in the tuned model. Valid until the next call."""
        return self._read(chunk, self._raw)

    def _read(self, chunk: Chunk, buffers: list[NDArray[np.uint64]]) -> tuple[Raw, Raw]:
        pair = []
        for model, raw in zip(self.models, buffers, strict=True):
            values = raw.view(raw_type(model.code(chunk.name)))[: chunk.stop - chunk.start]
            model.read_into(chunk.name, chunk.start, values)
            pair.append(values)
        return pair[0], pair[1]

    def change(self, chunk: Chunk, base: Raw, tuned: Raw, measure: Measure = "relative") -> Floats:
        """The change by the measure of what `read` gave, float32 [n]. Valid until the next call with the measure."""
        if self._shuffle is not None:
            return self._shuffled_change(self._shuffle, chunk, base, measure)
        old, new = self._widened(chunk, base, tuned, self._buffers(measure))
        return change_by(measure, old, new, out=new, scratch=old)

    def updates(self, chunk: Chunk, base: Raw, tuned: Raw) -> Floats:
        """The updates s - p of what `read` gave, float32 [n]. Valid until the next call."""
        old, new = self._widened(chunk, base, tuned, self._buffers("updates"))
        return np.subtract(new, old, out=new)

    def base(self, chunk: Chunk, base: Raw) -> Floats:
        """The base weights of what `read` gave, float32 [n]. Valid until the next call."""
        return self._widen(chunk, base, self._buffers("base")[0])

    def keys(
        self, chunk: Chunk, base: Raw, tuned: Raw, ranking: Ranking, change: Floats | None = None
    ) -> Keys:
        """`ranking_keys` of what `read` gave. change: what `change` gave for it, where that is known already."""
        if ranking.order == "shuffled":
            values = self._shuffled_change(ranking.seed, chunk, base, ranking.measure)
        elif ranking.order == "smallest-base":
            values = self.base(chunk, base)
        elif change is None or ranking.measure != "relative":
            values = self.change(chunk, base, tuned, ranking.measure)
        else:
            values = change
        return ranking_keys(ranking, chunk.name, chunk.start, values)

    def _shuffled_change(self, seed: int, chunk: Chunk, base: Raw, measure: Measure) -> Floats:
        size = self.models[0].numel(chunk.name)
        source = Chunk(chunk.name, *source_of_stretch(seed, chunk.name, size, chunk.start))
        assert source.stop - source.start == base.size, f"{chunk}: is not a stretch of a shuffle"
        # a mixer needs the keys of several rankings at a time, so each has buffers of its own
        buffers = self._buffers(f"{measure} shuffled by {seed}")
        old, new = self._widened(chunk, *self._read(source, self._source), buffers)
        with np.errstate(all="ignore"):  # weights that are not finite are reported by name elsewhere
            np.subtract(new, old, out=new)
        updates = shuffle_stretch(seed, chunk.name, chunk.start, new, buffers[2][: new.size])
        return change_of(measure, self._widen(chunk, base, old), updates, scratch=old)

    def _buffers(self, purpose: str) -> list[Floats]:
        if purpose not in self._floats:
            self._floats[purpose] = [np.empty(CHUNK, dtype=np.float32) for _ in range(3)]
        return self._floats[purpose]

    def _widened(self, chunk: Chunk, base: Raw, tuned: Raw, buffers: list[Floats]) -> tuple[Floats, Floats]:
        return self._widen(chunk, base, buffers[0]), self._widen(chunk, tuned, buffers[1])

    def _widen(self, chunk: Chunk, raw: Raw, out: Floats) -> Floats:
        return widen(raw, self.models[0].code(chunk.name), out[: raw.size])

    def high_bits(self, keys: Keys) -> Counts:
        return np.right_shift(keys, 16, out=self._high[: keys.size])

    def check_finite(self, chunk: Chunk, base: Raw, tuned: Raw) -> None:
        for model, values in zip(self.models, (base, tuned), strict=True):
            check_finite(model, chunk.name, values)
