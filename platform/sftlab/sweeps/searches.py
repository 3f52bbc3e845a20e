"""How trials are chosen: all points of a grid, random draws, or a sampler that learns from finished ones.

`search_of` is the only place that asks which kind a sweep has.
"""

from __future__ import annotations

import math
import random
from abc import ABC, abstractmethod
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, Protocol

from sftlab.errors import UserError
from sftlab.execution.cost import Cost, most
from sftlab.store.mirror import pull
from sftlab.sweeps.records import done_marker, points_done, read_records, record_file
from sftlab.sweeps.search import HalvingSpec, Range, SearchSpec
from sftlab.sweeps.trial import Config, T, T_co, T_contra, Trials

SCORE = "score"


class Points(Protocol[T_co]):
    """The points that one run of Ray Tune tries. Picklable."""

    @property
    def count(self) -> int: ...

    def trials_of(self, config: Config) -> Sequence[T_co]:
        """The trials of a point, as Ray Tune hands it to a process."""

    def draw(self, again: Sequence[Config] | None) -> tuple[dict[str, Any], Any, int]:
        """Parameter space, search algorithm and number of samples: of these points again, or, with None, of all."""

    def done_markers(self, config: Config, draw: str) -> list[Path]:
        """The files that mark a point as done. draw: Ray Tune's name of this try."""


class Pricing(Protocol[T_contra]):
    """What trials of a study cost."""

    def trials(self, trials: Iterable[T_contra]) -> Cost:
        """What the steps of these trials take, each counted once, as if nothing of them were there."""

    def models(self, trial: T_contra) -> int:
        """How many models of a rung of this trial are evaluated."""

    def missing(self, trials: Iterable[T_contra]) -> tuple[list[str], Cost]:
        """Lines that count the trials and their steps, and what the missing ones take."""


@dataclass(frozen=True)
class Planned:
    """What a sweep plans: lines of text, the cost of what is missing, and whether that is an upper bound."""

    lines: list[str]
    cost: Cost
    at_most: bool = False


@dataclass(frozen=True)
class Search(ABC, Generic[T]):
    """The search of a sweep over some trials.

    name: that of the sweep. records: the folder with the records of its trials.
    """

    trials: Trials[T]
    spec: SearchSpec
    halving: HalvingSpec | None
    name: str
    records: Path

    @abstractmethod
    def listed(self) -> Iterator[T]:
        """The trials that are known before any has run, each once; none where a sampler chooses."""

    @abstractmethod
    def points(self, pending: Sequence[Sequence[T]]) -> Points[T]:
        """What is left to run. pending: the entries that are not finished."""

    @abstractmethod
    def left(self, listed: Iterable[T], is_finished: Callable[[T], bool]) -> int:
        """How many trials are not finished; of a sampler, how many points."""

    @abstractmethod
    def finished(self, listed: Sequence[T]) -> list[T]:
        """The finished trials, every rung as a separate one. listed: all trials of `listed`, in any order."""

    @abstractmethod
    def check(self) -> None:
        """Raises UserError where a point could not be built, before anything runs."""

    @abstractmethod
    def cost(self, pricing: Pricing[T]) -> Cost:
        """The most that all trials take, as if nothing of them were there."""

    @abstractmethod
    def sizes(self, pricing: Pricing[T]) -> tuple[int, int]:
        """How many models are fine-tuned and how many are evaluated, those of all rungs."""

    @abstractmethod
    def plan(self, pricing: Pricing[T]) -> Planned:
        """What there is and what is missing."""

    @property
    def rungs(self) -> int:
        return 1 if self.halving is None else len(self.halving.rungs)

    def entries(self) -> Iterator[tuple[T, ...]]:
        """What Ray Tune runs as one: a listed trial, or where the sweep halves, those of all seeds of a point.

        Halving judges a point by the mean of its seeds: no training set goes on alone because it was a lucky one.
        """
        if self.halving is None:
            yield from ((trial,) for trial in self.listed())
            return
        points: dict[Hashable, list[T]] = {}
        for trial in self.listed():
            points.setdefault(trial.point, []).append(trial)
        yield from map(tuple, points.values())

    def recorded_rungs(self, trials: Iterable[T]) -> list[T]:
        """Those rungs of these trials that have records, each once."""
        rungs = {record_file(self.records, r): r for trial in trials for r in self.trials.rungs_of(trial)}
        pull(self.records)
        return [rung for file, rung in rungs.items() if file.exists()]


class Listed(Search[T]):
    """A search whose trials are known before any has run."""

    @abstractmethod
    def _made(self) -> Iterator[T]:
        """The trials, which may hold one twice."""

    def listed(self) -> Iterator[T]:
        seen: set[str] = set()
        for trial in self._made():
            key = record_file(self.records, trial).name
            if key not in seen:
                seen.add(key)
                yield trial

    def points(self, pending: Sequence[Sequence[T]]) -> ListedPoints[T]:
        return ListedPoints(tuple(pending), self.records)

    def left(self, listed: Iterable[T], is_finished: Callable[[T], bool]) -> int:
        return sum(not is_finished(trial) for trial in listed)

    def finished(self, listed: Sequence[T]) -> list[T]:
        return list(listed) if self.halving is None else self.recorded_rungs(listed)

    def check(self) -> None:
        """Nothing to do: whoever lists the trials makes each of them."""

    def cost(self, pricing: Pricing[T]) -> Cost:
        return pricing.trials(self.listed())

    def sizes(self, pricing: Pricing[T]) -> tuple[int, int]:
        models = [pricing.models(trial) for trial in self.listed()]
        return self.rungs * len(models), self.rungs * sum(models)

    def plan(self, pricing: Pricing[T]) -> Planned:
        return Planned(*pricing.missing(self.listed()))


class Grid(Listed[T]):
    """All points of the axes."""

    def _made(self) -> Iterator[T]:
        return self.trials.grid()


class Random(Listed[T]):
    """Random draws, all seeds of a point: the n-th point is the same whatever their number."""

    def _made(self) -> Iterator[T]:
        assert self.spec.trials is not None
        for number in range(self.spec.trials):
            draw = random.Random(f"{self.spec.seed}/{number}")
            config = {
                name: domain[draw.randrange(len(domain))]
                if isinstance(domain, tuple)
                else _between(domain, draw.random())
                for name, domain in self.trials.space().items()
            }
            yield from self.trials.trials_of(config)


class Sampler(Search[T]):
    """Points that Optuna chooses by the scores of those before; a journal file keeps what it has learnt."""

    def listed(self) -> Iterator[T]:
        return iter(())

    def points(self, pending: Sequence[Sequence[T]]) -> SampledPoints[T]:
        assert not pending
        return SampledPoints(self, self._left)

    def left(self, listed: Iterable[T], is_finished: Callable[[T], bool]) -> int:
        del listed, is_finished
        return self._left

    def finished(self, listed: Sequence[T]) -> list[T]:
        assert not listed
        return self.recorded_rungs(
            trial for record in read_records(self.records) for trial in self.trials.trials_of(record.config)
        )

    def check(self) -> None:
        self.trials.most_expensive()

    def cost(self, pricing: Pricing[T]) -> Cost:
        return self._cost(pricing, self._total)

    def sizes(self, pricing: Pricing[T]) -> tuple[int, int]:
        tuned = self._total * self.trials.seeds * self.rungs
        return tuned, tuned * max(pricing.models(trial) for trial in self.trials.most_expensive())

    def plan(self, pricing: Pricing[T]) -> Planned:
        done = points_done(self.records)
        line = f"sweep {self.name}: Optuna chooses {self._total} points, {done} are finished"
        return Planned([line], self._cost(pricing, self._left), at_most=self._left > 0)

    def _cost(self, pricing: Pricing[T], points: int) -> Cost:
        """A sampler's points are not known beforehand: each counts as the most expensive one of the space."""
        each = [pricing.trials([trial]) for trial in self.trials.most_expensive()]
        return most(each).times(self.trials.seeds * points)

    @property
    def _total(self) -> int:
        assert self.spec.trials is not None
        return self.spec.trials

    @property
    def _left(self) -> int:
        return max(0, self._total - points_done(self.records))


SEARCHES: dict[str, type[Search[Any]]] = {"grid": Grid, "random": Random, "optuna": Sampler}


def search_of(
    trials: Trials[T], search: SearchSpec, halving: HalvingSpec | None, name: str, records: Path
) -> Search[T]:
    """The search of a sweep, by its kind."""
    return SEARCHES[search.kind](trials, search, halving, name, records)


@dataclass(frozen=True)
class ListedPoints(Generic[T]):
    """Trials that are known beforehand, those of an entry as one; a point is the number of its entry."""

    entries: Sequence[Sequence[T]]
    records: Path

    @property
    def count(self) -> int:
        return len(self.entries)

    def trials_of(self, config: Config) -> Sequence[T]:
        return self.entries[config["trial"]]

    def draw(self, again: Sequence[Config] | None) -> tuple[dict[str, Any], Any, int]:
        from ray import tune

        numbers = list(range(self.count)) if again is None else [config["trial"] for config in again]
        return {"trial": tune.grid_search(numbers)}, None, 1

    def done_markers(self, config: Config, draw: str) -> list[Path]:
        del draw
        return [done_marker(self.records, trial) for trial in self.trials_of(config)]


@dataclass(frozen=True)
class SampledPoints(Generic[T]):
    """`count` further points that Optuna chooses."""

    search: Search[T]
    count: int

    def trials_of(self, config: Config) -> Sequence[T]:
        return self.search.trials.trials_of(config)

    def draw(self, again: Sequence[Config] | None) -> tuple[dict[str, Any], Any, int]:
        import optuna
        from ray.tune.search.optuna import OptunaSearch

        optuna.logging.set_verbosity(optuna.logging.WARNING)
        records = self.search.records
        records.mkdir(parents=True, exist_ok=True)
        search = OptunaSearch(
            metric=SCORE,
            mode="max",
            points_to_evaluate=None if again is None else [dict(config) for config in again],
            # A search that goes on must not begin with its first draws again.
            sampler=optuna.samplers.TPESampler(seed=self.search.spec.seed + points_done(records)),
            study_name=self.search.name,
            storage=_journal(records.parent / "optuna.journal"),
        )
        param_space = {name: _domain(domain) for name, domain in self.search.trials.space().items()}
        return param_space, search, self.count if again is None else len(again)

    def done_markers(self, config: Config, draw: str) -> list[Path]:
        """One for each draw, by which points are counted."""
        return [done_marker(self.search.records, self.trials_of(config)[0], draw)]


def _journal(path: Path) -> Any:
    """What a search has learnt, a JSON line an event. Raises UserError where it cannot be read."""
    from optuna.storages import JournalStorage
    from optuna.storages.journal import JournalFileBackend

    try:
        return JournalStorage(JournalFileBackend(str(path)))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(
            f"not a readable journal of a search ({type(error).__name__}: {error})",
            place=path,
            advice="delete it, and run again: finished trials are kept.",
        ) from error


def _domain(domain: tuple[Any, ...] | Range) -> Any:
    from ray import tune

    if not isinstance(domain, Range):
        return tune.choice(list(domain))
    draw = tune.loguniform if domain.log else tune.uniform
    return draw(domain.low, domain.high)


def _between(domain: Range, at: float) -> float:
    if domain.log:
        low, high = math.log(domain.low), math.log(domain.high)
        return math.exp(low + at * (high - low))
    return domain.low + at * (domain.high - domain.low)
