"""What statements on a change are compared with: the null of shuffled updates, and how much of the change is undone.

The concentration of the relative change (Table 3) and the place of the most changed weights (Tables 9 and 10) follow
in part from dividing by small weights, whatever the updates are. The null keeps the weights of the base model and the
updates of every parameter, and shuffles which weight got which update (`sftlab.weights.shuffle`). The updates are
shuffled as float32 numbers and are not rounded to the type of the model again.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import fsum
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from sftlab.config.documents import parse_record
from sftlab.errors import UserError
from sftlab.weights.cut import Cut, Ranking
from sftlab.weights.reader import PairReader
from sftlab.weights.regions import by_layer, by_module, percents_of
from sftlab.weights.search import Search
from sftlab.weights.selection import mark
from sftlab.weights.stream import CHUNK, Chunk, Progress, Worker, chunks, walk
from sftlab.weights.survey import survey

CONTROL_PASSES = 4  # over the region: three for the null, one for the change undone


@dataclass(frozen=True)
class Undone:
    """Shares (0 to 1) of the region's total change that a restoration takes back.

    relative: of the sum of the relative changes; l1: of the sum of |s - p|; l2: of the sum of (s - p)^2.
    """

    relative: float
    l1: float
    l2: float


@dataclass(frozen=True)
class Null:
    """The profile of the pair with shuffled updates, by one seed.

    concentration, restored_by_layer, restored_by_module: as those of `ChangeProfile`, with as many weights restored as
    its cuts restore, the most changed ones first.
    """

    seed: int
    concentration: Mapping[str, float]
    restored_by_layer: Mapping[str, Mapping[str, int]]
    restored_by_module: Mapping[str, Mapping[str, int]]

    def layer_percents(self, percent: str) -> dict[str, float]:
        """How the restored weights distribute over the layers, in percent."""
        return percents_of(self.restored_by_layer[percent])

    def module_percents(self, percent: str) -> dict[str, float]:
        """How the restored weights distribute over the modules, in percent."""
        return percents_of(self.restored_by_module[percent])


@dataclass(frozen=True)
class Controls:
    """What statements on a change are compared with. undone: percent -> what its cut takes back."""

    null: Null
    undone: Mapping[str, Undone]


def read_controls_file(path: Path) -> Controls:
    """What a controls.json holds. Raises UserError where it is damaged."""
    advice = "delete its folder to measure it again."
    found = parse_record(Controls, path.read_bytes(), str(path), advice)
    lacking = found.undone.keys() - (
        found.null.restored_by_layer.keys() & found.null.restored_by_module.keys()
    )
    if lacking:
        raise UserError(
            f"does not say what {min(lacking)} % restore under the null", place=path, advice=advice
        )
    return found


def controls_of(search: Search, cuts: Mapping[str, Cut], seed: int, progress: Progress) -> Controls:
    """Streams the pair four times. search: the one that found the cuts. seed: of the shuffle."""
    return Controls(null_of(search, cuts, seed, progress), undone_by(search, cuts, progress))


def null_of(search: Search, cuts: Mapping[str, Cut], seed: int, progress: Progress) -> Null:
    """The null in three passes; arguments as `controls_of`."""
    shuffled = Search(search.pair, search.sizes, Ranking.of("top", 0, search.ranking.measure), seed)
    found = survey(shuffled, {label: cut.count for label, cut in cuts.items()}, {}, progress)
    restored = {label: found.restored(label)[0] for label in cuts}
    return Null(
        seed=seed,
        concentration=found.concentration,
        restored_by_layer={label: by_layer(of) for label, of in restored.items()},
        restored_by_module={label: by_module(of) for label, of in restored.items()},
    )


def undone_by(search: Search, cuts: Mapping[str, Cut], progress: Progress) -> dict[str, Undone]:
    """How much of the change each cut takes back, in one pass. The cuts are of the search's region and order."""
    ladder = sorted(cuts.values(), key=lambda cut: cut.count)
    workers = walk(chunks(search.sizes), lambda: _UndonePass(search.reader(), ladder), progress)
    parts = [part for worker in workers for part in worker.sums]
    # fsum rounds once, so that the order in which threads took the stretches does not matter
    sums = np.array(
        [[fsum(part[kind, level] for part in parts) for level in range(len(ladder) + 1)] for kind in range(3)]
    )
    # A weight at level i is restored by the last i cuts of the ladder: by a cut, all levels that reach it.
    totals = [fsum(levels) for levels in sums]
    return {
        cut.percent: Undone(
            *(
                fsum(levels[len(ladder) - index :]) / total if total else 0.0
                for levels, total in zip(sums, totals, strict=True)
            )
        )
        for index, cut in enumerate(ladder)
    }


class _UndonePass(Worker):
    """Sums the relative, the absolute and the squared change by how many cuts of a ladder restore a weight."""

    def __init__(self, reader: PairReader, ladder: Sequence[Cut]) -> None:
        self._reader, self._ladder = reader, ladder
        self._mark, self._level = np.empty(CHUNK, dtype=np.bool_), np.empty(CHUNK, dtype=np.intp)
        self._small = np.empty(CHUNK, dtype=np.uint8 if len(ladder) < 256 else np.uint16)
        self.sums: list[NDArray[np.float64]] = []  # of each stretch [3, levels]

    def __call__(self, chunk: Chunk) -> int:
        base, tuned = self._reader.read(chunk)
        small, marked = self._small[: base.size], self._mark[: base.size]
        small.fill(0)
        relative = self._reader.change(chunk, base, tuned)
        if self._ladder:
            keys = self._reader.keys(chunk, base, tuned, self._ladder[0].ranking, relative)
            for cut in self._ladder:
                np.add(small, mark(keys, chunk.name, chunk.start, cut, marked), out=small)
        level = self._level[: base.size]
        np.copyto(level, small)
        absolute = np.abs(self._reader.updates(chunk, base, tuned)).astype(np.float64)
        levels = len(self._ladder) + 1
        weighed = (relative, absolute, absolute * absolute)
        self.sums.append(np.stack([np.bincount(level, weights, levels) for weights in weighed]))
        return base.nbytes + tuned.nbytes
