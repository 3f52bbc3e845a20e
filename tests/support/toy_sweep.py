"""A second study for sweeps, in one file: a trial adds two numbers, and its score is their sum over 100."""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

from sftlab.sweeps.outcome import Outcome
from sftlab.sweeps.search import Range, SearchSpec
from sftlab.sweeps.trial import Config, Space, TrialContext


class ToySearch(SearchSpec):
    metrics: ClassVar[tuple[str, ...]] = ("total",)
    metric: str = "total"


@dataclass(frozen=True)
class Toy:
    left: float
    right: int
    seed: int
    epochs: int = 1

    @property
    def name(self) -> str:
        return f"{self.left:g}+{self.right}-seed{self.seed}-epochs{self.epochs}"

    @property
    def variant(self) -> str:
        return f"epochs={self.epochs}"

    @property
    def key(self) -> str:
        return self.name

    @property
    def point(self) -> Hashable:
        return self.left, self.right


@dataclass(frozen=True)
class ToyTrials:
    """The trials of a toy sweep. rungs: epochs of each."""

    rungs: tuple[int, ...] = (1,)
    left: tuple[float, ...] | Range = (1.0, 2.0)
    right: tuple[int, ...] = (10, 20)
    all_seeds: tuple[int, ...] = (0, 1)

    @property
    def seeds(self) -> int:
        return len(self.all_seeds)

    def grid(self) -> Iterator[Toy]:
        assert isinstance(self.left, tuple)
        for seed in self.all_seeds:
            for left in self.left:
                yield from (Toy(left, right, seed) for right in self.right)

    def space(self) -> Space:
        return {"left": self.left, "right": self.right}

    def trials_of(self, config: Config) -> Sequence[Toy]:
        return [Toy(config["left"], config["right"], seed) for seed in self.all_seeds]

    def rungs_of(self, trial: Toy) -> Sequence[Toy]:
        return [replace(trial, epochs=epochs) for epochs in self.rungs]

    def most_expensive(self) -> Sequence[Toy]:
        left = self.left.high if isinstance(self.left, Range) else max(self.left)
        return [Toy(left, right, self.all_seeds[0]) for right in self.right]

    def build(self, context: TrialContext, trials: Sequence[Toy]) -> list[Outcome]:
        """The score of a trial grows with its seed, so that a mean of seeds is none of them."""
        assert context.metric == "total"
        scores = [(toy.left + toy.right + toy.seed) / 100 for toy in trials]
        return [Outcome({0.0: score}, 0.0, score) for score in scores]
