"""How far each module of each layer moved in fine-tuning (Harada et al. 2025, Figure 5a)."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from math import nan, sqrt

import torch

from sftlab.weights.pairs import check_pair
from sftlab.weights.regions import place
from sftlab.weights.shards import Checkpoint
from sftlab.weights.stream import CHUNK


@dataclass(frozen=True)
class ModuleChange:
    """Sums over the weights of one module of one layer; `layer` is None outside of the layers.

    squared_change: sum of (tuned - base) squared; squared_base: sum of base squared; both in float64.
    """

    layer: int | None
    module: str
    weights: int
    changed: int
    squared_change: float
    squared_base: float

    @property
    def relative(self) -> float:
        """Relative Frobenius change, ||tuned - base|| / ||base||; NaN where the base is zero."""
        return sqrt(self.squared_change / self.squared_base) if self.squared_base else nan


def layer_changes(base: Checkpoint, tuned: Checkpoint) -> list[ModuleChange]:
    """The change of every module, by layer, then by module; outside of the layers first.

    Sums run over each tensor in its order, so that the same pair gives the same bits. Memory holds one tensor of each
    model. Raises UserError for models that do not fit each other.
    """
    sums: dict[tuple[int, str], list[float]] = defaultdict(lambda: [0.0, 0.0, 0.0, 0.0])
    for name in sorted(check_pair(base, tuned)):
        found = place(name)
        key = (-1 if found.layer is None else found.layer, found.module)
        for position, value in enumerate(_sums(base.read(name), tuned.read(name))):
            sums[key][position] += value
    return [
        ModuleChange(None if layer < 0 else layer, module, int(weights), int(changed), moved, size)
        for (layer, module), (weights, changed, moved, size) in sorted(sums.items())
    ]


def by_layer(changes: Iterable[ModuleChange]) -> dict[int, ModuleChange]:
    """The modules of each layer together; what is outside of the layers is left out."""
    layers: dict[int, list[ModuleChange]] = defaultdict(list)
    for change in changes:
        if change.layer is not None:
            layers[change.layer].append(change)
    return {
        layer: ModuleChange(
            layer,
            "all",
            sum(part.weights for part in parts),
            sum(part.changed for part in parts),
            sum(part.squared_change for part in parts),
            sum(part.squared_base for part in parts),
        )
        for layer, parts in sorted(layers.items())
    }


def _sums(base: torch.Tensor, tuned: torch.Tensor) -> tuple[float, float, float, float]:
    """Weights, changed weights, squared change, squared base."""
    one, other = base.flatten(), tuned.flatten()
    changed, moved, size = 0, 0.0, 0.0
    for start in range(0, one.numel(), CHUNK):
        before = one[start : start + CHUNK].double()
        step = other[start : start + CHUNK].double() - before
        changed += int(torch.count_nonzero(step))
        moved += float(step.square().sum())
        size += float(before.square().sum())
    return float(one.numel()), float(changed), moved, size
