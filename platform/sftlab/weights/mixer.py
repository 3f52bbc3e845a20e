"""Mixing stretches of two models into stretches of restored models."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np

from sftlab.weights.bits import Raw, raw_view
from sftlab.weights.cut import Cut, Ranking
from sftlab.weights.pairs import is_shared, tied_aliases
from sftlab.weights.reader import PairReader
from sftlab.weights.regions import in_region
from sftlab.weights.selection import Keys, mark, mix
from sftlab.weights.shards import Checkpoint
from sftlab.weights.stream import CHUNK, Chunk, chunks

if TYPE_CHECKING:
    import torch


class LadderMixer:
    """Mixes stretches of two models into stretches of restored models, in buffers of its own."""

    def __init__(self, base: Checkpoint, tuned: Checkpoint, cuts: Sequence[Cut]) -> None:
        self._reader = PairReader(base, tuned)
        self._cuts = cuts
        self._mark = np.empty(CHUNK, dtype=np.bool_)
        self._difference, self._mixed = (np.empty(CHUNK, dtype=np.uint32) for _ in range(2))

    def mix(self, chunk: Chunk) -> Iterator[Raw]:
        """The bits of the stretch in the model of every cut, one after the other; valid until the next one.

        The parameter must belong to the region of at least one of the cuts.
        """
        base, tuned = self._reader.read(chunk)
        difference = np.bitwise_xor(base, tuned, out=self._difference.view(base.dtype)[: base.size])
        mixed = self._mixed.view(base.dtype)[: base.size]
        marked = self._mark[: base.size]
        ranked: dict[Ranking, Keys] = {}
        for cut in self._cuts:
            if not in_region(chunk.name, cut.region, cut.layers):
                yield tuned
                continue
            if cut.ranking not in ranked:
                ranked[cut.ranking] = self._reader.keys(chunk, base, tuned, cut.ranking)
            mark(ranked[cut.ranking], chunk.name, chunk.start, cut, marked)
            yield mix(marked, difference, tuned, mixed)


def restored_tensors(base: Checkpoint, tuned: Checkpoint, cut: Cut) -> Iterator[tuple[str, torch.Tensor]]:
    """All tensors that the tuned model stores, one at a time, restored by the cut.

    A tied tensor stored twice comes twice, the same both times.
    """
    import torch

    aliases = tied_aliases(tuned)
    mixer = LadderMixer(base, tuned, [cut])
    for name in tuned.names:
        source = aliases.get(name, name)
        if not (in_region(source, cut.region, cut.layers) and is_shared(base, tuned, source)):
            yield name, tuned.read(name)
            continue
        tensor = torch.empty(tuned.shape(name), dtype=tuned.dtype(name))
        bits = raw_view(tensor)
        for chunk in chunks({source: tuned.numel(name)}):
            for mixed in mixer.mix(chunk):
                bits[chunk.start : chunk.stop] = mixed
        yield name, tensor
