"""How large the update of each module of each layer is: absolute, squared and relative sums, and weights changed."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from math import fsum, nan, sqrt
from os import PathLike

import numpy as np

from sftlab.weights.bits import item_bytes
from sftlab.weights.pairs import check_pair, open_pair
from sftlab.weights.reader import PairReader
from sftlab.weights.regions import OUTSIDE, place
from sftlab.weights.stream import Chunk, Progress, Report, Worker, chunks, walk


@dataclass(frozen=True)
class UpdateSize:
    """Sums over the weights of one module of one layer, of the update d = s - p from the base p to the tuned s.

    layer: a number as text, or OUTSIDE. changed: weights with d other than 0. absolute: sum of |d|. squared: sum of
    d^2. relative: sum of r = |d| / (|p| + 1e-8). squared_base: sum of p^2.
    """

    layer: str
    module: str
    weights: int
    changed: int
    absolute: float
    squared: float
    relative: float
    squared_base: float

    @property
    def changed_share(self) -> float:
        return self.changed / self.weights if self.weights else nan

    @property
    def norm(self) -> float:
        """||s - p||, the L2 norm."""
        return sqrt(self.squared)

    @property
    def relative_norm(self) -> float:
        """||s - p|| / ||p||; NaN where the base is zero."""
        return sqrt(self.squared / self.squared_base) if self.squared_base else nan

    @property
    def mean_relative(self) -> float:
        """Mean of r over the weights."""
        return self.relative / self.weights if self.weights else nan


def together(parts: Iterable[UpdateSize], layer: str = "all", module: str = "all") -> UpdateSize:
    """The sums over several modules, under another name."""
    of = list(parts)
    return UpdateSize(
        layer,
        module,
        sum(part.weights for part in of),
        sum(part.changed for part in of),
        *(
            fsum(getattr(part, name) for part in of)
            for name in ("absolute", "squared", "relative", "squared_base")
        ),
    )


def update_sizes(
    base_dir: str | PathLike[str], tuned_dir: str | PathLike[str], progress: Report | None = None
) -> list[UpdateSize]:
    """The update of every module, by layer and then by module; outside of the layers last.

    Streams both models once, all parameters of them. Sums are over stretches of 2^18 weights in float64 and rounded
    once over these, so that the same pair gives the same bits. Raises UserError for models that do not fit each other.
    """
    with open_pair(base_dir, tuned_dir) as pair:
        base, tuned = pair
        sizes = {name: base.numel(name) for name in sorted(check_pair(base, tuned))}
        read = sum(2 * size * item_bytes(base.code(name)) for name, size in sizes.items())
        done = Progress(read, progress)
        workers = walk(chunks(sizes), lambda: _SizePass(PairReader(base, tuned)), done)
        done.show()
    found: dict[str, list[tuple[float, ...]]] = defaultdict(list)
    for worker in workers:
        for name, sums in worker.sums:
            found[name].append(sums)
    return _by_module(found, sizes)


def _by_module(found: dict[str, list[tuple[float, ...]]], sizes: dict[str, int]) -> list[UpdateSize]:
    modules: dict[tuple[str, str], list[str]] = defaultdict(list)
    for name in sizes:
        at = place(name)
        modules[OUTSIDE if at.layer is None else str(at.layer), at.module].append(name)

    def size_of(layer: str, module: str, names: Sequence[str]) -> UpdateSize:
        parts = [part for name in names for part in found[name]]
        changed, *sums = (fsum(part[kind] for part in parts) for kind in range(5))
        return UpdateSize(layer, module, sum(sizes[name] for name in names), int(changed), *sums)

    order = sorted(
        modules, key=lambda key: (key[0] == OUTSIDE, int(key[0]) if key[0] != OUTSIDE else 0, key[1])
    )
    return [size_of(layer, module, modules[layer, module]) for layer, module in order]


class _SizePass(Worker):
    """Of each stretch: weights changed, and the sums of |d|, d^2, r and p^2."""

    def __init__(self, reader: PairReader) -> None:
        self._reader = reader
        self.sums: list[tuple[str, tuple[float, ...]]] = []

    def __call__(self, chunk: Chunk) -> int:
        base, tuned = self._reader.read(chunk)
        relative = self._reader.change(chunk, base, tuned).astype(np.float64)
        update = self._reader.updates(chunk, base, tuned).astype(np.float64)
        before = self._reader.base(chunk, base).astype(np.float64)
        sums = (
            float(np.count_nonzero(update)),
            float(np.abs(update).sum()),
            float(np.square(update).sum()),
            float(relative.sum()),
            float(np.square(before).sum()),
        )
        self.sums.append((chunk.name, sums))
        return base.nbytes + tuned.nbytes
