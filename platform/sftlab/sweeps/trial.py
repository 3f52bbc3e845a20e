"""What a study implements to be swept: its trials, what they are drawn from, and how one is built.

Tune's runner, the pools, the records and the logging know these protocols and no study.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

from sftlab.execution.runtime import Runtime
from sftlab.store.artifact import Store
from sftlab.sweeps.outcome import Outcome
from sftlab.sweeps.search import Range

Config = Mapping[str, Any]
"""A point of a search space, by the names of its axes."""
Space = Mapping[str, tuple[Any, ...] | Range]
"""What a search draws from, by the names of its axes: a tuple of choices or a range."""


class Trial(Protocol):
    """One fine-tuned model, or more of one recipe, that a sweep tries. Picklable."""

    @property
    def name(self) -> str:
        """Shown in progress lines, error messages and records."""

    @property
    def variant(self) -> str:
        """The settings that the sweep varies, as text; records keep it."""

    @property
    def key(self) -> str:
        """Identifies the trial within its sweep; its record is found by it."""

    @property
    def point(self) -> Hashable:
        """Equal for trials that differ in their seed alone; halving judges them by their mean."""

    @property
    def epochs(self) -> int:
        """Epochs of fine-tuning, by which halving compares rungs."""


T = TypeVar("T", bound=Trial)
T_co = TypeVar("T_co", bound=Trial, covariant=True)
T_contra = TypeVar("T_contra", bound=Trial, contravariant=True)


@dataclass(frozen=True)
class TrialContext:
    """What every trial is handed: the store, the resources, and the pools by name."""

    store: Store
    runtime: Runtime
    pools: str
    metric: str
    plugins: tuple[str, ...] = ()

    def pool(self, which: str) -> Any:
        """The actor of a pool, `engines` or `training`."""
        import ray

        return ray.get_actor(f"{self.pools}-{which}")


class Trials(Protocol[T]):
    """The trials of a sweep over one study. Picklable: every process of a trial gets a copy."""

    @property
    def seeds(self) -> int:
        """How many trials a point of the search space has: one a seed."""

    def grid(self) -> Iterator[T]:
        """All points of the grid. Asked only where no axis is a range (`search.walks_ranges`)."""

    def space(self) -> Space:
        """What a search draws from; seeds are not drawn, as every point is tried with all of them."""

    def trials_of(self, config: Config) -> Sequence[T]:
        """The trials of the point with these values, one for each seed."""

    def rungs_of(self, trial: T) -> Sequence[T]:
        """A trial with the epochs of each rung of the halving; the trial alone where the sweep has none."""

    def most_expensive(self) -> Sequence[T]:
        """Trials of a search, one of which takes at least as much as any other.

        Raises UserError where the sweep's settings do not fit each other.
        """

    def build(self, context: TrialContext, trials: Sequence[T]) -> list[Outcome]:
        """Build what trials that differ in their seed alone lack, and score each. Runs in a trial's process.

        Raises UserError where one cannot be built; what is finished stays committed.
        """
