"""Causal layer maps: what the update of a layer does to scores, from models of which some layers are tuned.

A swap is a model with the tuned weights in some parts and the base weights in all others. Its parts are the layers, and
what is outside of the layers. Scores are means over benchmarks of the mean over questions.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Indices = npt.NDArray[np.int64]

Kind = Literal["only", "back", "first", "last"]
"""only: the base with this part's update alone; back: the tuned model with this part put back to the base;
first, last: the base with the updates of so many layers from the input, or from the output."""
OUTSIDE = -1  # the part that is in no layer: embeddings and the final norm
RESAMPLES = 2000
KEPT_SHARE = 0.9  # of the gain, that the layers left in training must bring


@dataclass(frozen=True, order=True)
class LayerSwap:
    """One swap; `part` is a layer, OUTSIDE, or for first and last a number of layers."""

    kind: Kind
    part: int

    @property
    def name(self) -> str:
        return f"{self.kind}-{'outside' if self.part == OUTSIDE else self.part}"

    def tuned(self, layers: int) -> frozenset[int]:
        """The layers with tuned weights, of a model of so many layers."""
        whole = frozenset(range(layers))
        if self.kind == "first":
            return frozenset(range(self.part))
        if self.kind == "last":
            return frozenset(range(layers - self.part, layers))
        part = whole & {self.part}
        return part if self.kind == "only" else whole - part

    @property
    def outside(self) -> bool:
        """Whether what is outside of the layers is tuned."""
        return (self.kind == "only") == (self.part == OUTSIDE) and self.kind in ("only", "back")


def layer_swaps(layers: int, cumulative: bool = True) -> list[LayerSwap]:
    """The swaps of a map, each model once: one layer from an end is `only` it, all layers are `back-outside`."""
    parts = (*range(layers), OUTSIDE)
    swaps = [LayerSwap("only", part) for part in parts] + [LayerSwap("back", part) for part in parts]
    if cumulative:
        swaps += [LayerSwap("first", count) for count in range(2, layers)]
        swaps += [LayerSwap("last", count) for count in range(2, layers)]
    return swaps


@dataclass(frozen=True)
class Interval:
    """A difference of scores with its 95 % interval."""

    value: float
    low: float
    high: float


def benchmark_means(values: npt.ArrayLike, benchmarks: Indices) -> Floats:
    """[rows], the mean over benchmarks of the mean over questions of values [rows, questions]."""
    rows = np.asarray(values, dtype=np.float64)
    counts = np.bincount(benchmarks)
    means: Floats = rows @ (1 / (counts[benchmarks] * len(counts)))
    return means


def differences(values: npt.ArrayLike, benchmarks: Indices, seed: int) -> list[Interval]:
    """The mean over benchmarks of the mean over questions of each row, with a bootstrap over the questions of each.

    values: [rows, questions], differences of scores of two models on the same questions; benchmarks: [questions], the
    number of the benchmark of each, all from 0 on.
    """
    rows = np.asarray(values, dtype=np.float64)
    rng = np.random.default_rng(seed)
    names = range(int(benchmarks.max()) + 1)
    draws = np.zeros((RESAMPLES, len(rows)))
    for name in names:
        here = rows[:, benchmarks == name]
        count = here.shape[1]
        weights = rng.multinomial(count, np.full(count, 1 / count), size=RESAMPLES) / count
        draws += weights @ here.T / len(names)
    low, high = np.quantile(draws, [0.025, 0.975], axis=0)
    return [
        Interval(*map(float, one)) for one in zip(benchmark_means(rows, benchmarks), low, high, strict=True)
    ]


def halves(benchmarks: Indices) -> npt.NDArray[np.bool_]:
    """[questions], whether a question is one that chooses: of each benchmark the first, the third and so on.

    Benchmarks have two questions or more, so that the others are of all benchmarks too.
    """
    assert np.bincount(benchmarks).min() > 1, "a benchmark has one question"
    chosen = np.zeros(len(benchmarks), dtype=bool)
    for name in range(int(benchmarks.max()) + 1):
        chosen[np.flatnonzero(benchmarks == name)[::2]] = True
    return chosen


@dataclass(frozen=True)
class Proposal:
    """Layers that a sweep may test, chosen on one half of the questions.

    swap: the measured swap that it follows from; layers: those to freeze, or to restore.
    """

    swap: LayerSwap
    layers: frozenset[int]


def freeze_proposal(swaps: Sequence[LayerSwap], gains: Floats, full: float, layers: int) -> Proposal | None:
    """Freeze all layers but the fewest whose updates together bring KEPT_SHARE of the gain; None if no swap does.

    gains: of each swap over the base; full: of the tuned model. Of as few layers, those with the largest gain.
    """
    if full <= 0:
        return None
    enough = [
        (len(swap.tuned(layers)), -gain, swap)
        for swap, gain in zip(swaps, gains.tolist(), strict=True)
        if swap.kind != "back" and not swap.outside and gain >= KEPT_SHARE * full
    ]
    if not enough:
        return None
    swap = min(enough)[2]
    frozen = frozenset(range(layers)) - swap.tuned(layers)
    return Proposal(swap, frozen) if frozen else None


def restore_proposal(swaps: Sequence[LayerSwap], changes: Floats) -> Proposal | None:
    """Restore the layer that raises the score most when it is put back; None where none raises it.

    changes: of each swap against the tuned model.
    """
    raising = [
        (-change, swap)
        for swap, change in zip(swaps, changes.tolist(), strict=True)
        if swap.kind == "back" and swap.part != OUTSIDE and change > 0
    ]
    if not raising:
        return None
    swap = min(raising)[1]
    return Proposal(swap, frozenset({swap.part}))
