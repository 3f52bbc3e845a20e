"""The trials of a sweep: points of its axes, each a study of one cell."""

from __future__ import annotations

import math
from collections.abc import Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import product
from typing import Any

from sftlab.errors import UserError, within
from sftlab.execution.checks import check_base_model, check_pocket_model, engines_on_cpu
from sftlab.execution.runtime import Runtime
from sftlab.facts.mastery import BUCKETS
from sftlab.facts.training_sets import ALL
from sftlab.strategies import Strategy, get_strategy
from sftlab.strategies.base import changed
from sftlab.studies.knowledge.check import check, check_left_out
from sftlab.studies.knowledge.pipeline import STAGES
from sftlab.studies.knowledge.plan import Plan, cell_name
from sftlab.studies.knowledge.sources import Sources
from sftlab.studies.knowledge.spec import StudySpec
from sftlab.studies.knowledge.sweep.spec import StrategyChoice, SweepSpec
from sftlab.sweeps.search import Range
from sftlab.sweeps.trial import Config, Space

NO_TOPIC = "none"  # of the axis of topics that are left out: nothing is
SHARE_STEPS = 20  # a search draws shares of a mixture in steps of 1/20


@dataclass(frozen=True)
class Trial:
    """One fine-tuned model with its ladder.

    variant: what it has in common with the trials that differ from it in data, size and seed alone. spec: the
    study with this variant's settings, whose grid is not used. percents: the ladder.
    """

    variant: str
    strategy: str
    settings: Mapping[str, Any]
    spec: StudySpec
    data: int | str
    size: int | str
    seed: int

    @property
    def cell(self) -> str:
        return cell_name(self.data, self.size, self.seed)

    @property
    def name(self) -> str:
        return f"{self.cell} {self.variant}"

    @property
    def key(self) -> str:
        """Its name and percentages, which belong to its identity in a search."""
        return f"{self.name}/{','.join(f'{p:g}' for p in self.spec.restore.percents)}"

    @property
    def point(self) -> Hashable:
        """All that identifies it but for its seed."""
        return self.variant, self.data, self.size, self.spec.restore.percents

    @property
    def epochs(self) -> int:
        return self.spec.sft.epochs

    def plan(self, sources: Sources) -> Plan:
        """The plan of this trial's one cell."""
        return Plan(self.spec, sources, ((self.data, self.size, self.seed),))


@dataclass(frozen=True)
class Point:
    """One point of the axes; None keeps the study's setting."""

    strategy: StrategyChoice
    data: int | str
    size: int | str
    seed: int
    learning_rate: float | None = None
    epochs: int | None = None
    percents: tuple[float, ...] | None = None
    region: str | None = None
    order: str | None = None
    leave_out: str | None = None  # a topic, or NO_TOPIC


class TrialMaker:
    """Turns points of a sweep's axes into trials; the study of each variant is made once."""

    def __init__(self, sweep: SweepSpec, study: StudySpec) -> None:
        self.sweep, self.study = sweep, study
        self._variant = lru_cache(maxsize=None)(self._make_variant)

    def __reduce__(self) -> tuple[Any, ...]:
        return TrialMaker, (self.sweep, self.study)

    def trial(self, point: Point) -> Trial:
        """Raises UserError where the strategy is unknown or its parameters are wrong."""
        strategy = point.strategy
        parameters = tuple(sorted((key, _hashable(value)) for key, value in strategy.parameters.items()))
        name, spec, settings, chosen = self._variant(
            strategy.name,
            parameters,
            (("learning_rate", point.learning_rate), ("epochs", point.epochs)),
            point.percents,
            (("region", point.region), ("order", point.order)),
            point.leave_out,
        )
        buckets = spec.training_sets.buckets
        data = chosen.training_set(
            point.data, None if buckets == self.study.training_sets.buckets else buckets
        )
        return Trial(name, strategy.name, settings, spec, data, point.size, point.seed)

    def _make_variant(
        self,
        strategy: str,
        parameters: tuple[tuple[str, Any], ...],
        training: tuple[tuple[str, float | None], ...],
        percents: tuple[float, ...] | None,
        choice: tuple[tuple[str, str | None], ...],
        leave_out: str | None,
    ) -> tuple[str, StudySpec, dict[str, Any], Strategy]:
        axes, given = self.sweep.axes, dict(parameters)
        known = type(get_strategy(strategy, given)).model_fields
        # What an entry sets itself is kept, and a strategy without a region or an order has none to vary.
        given |= {key: value for key, value in choice if value and key in known and key not in given}
        sft = {key: value for key, value in training if value is not None}
        treatment = self.study.treatment
        treatment = treatment.model_copy(update={"sft": treatment.sft.model_copy(update=sft)})
        if percents is not None:
            treatment = changed(treatment, "restore", percents=percents)
        without: dict[str, Any] = {} if leave_out is None else {"leave_out": leave_out}
        if leave_out is not None:
            topic = None if leave_out == NO_TOPIC else leave_out
            treatment = changed(treatment, "training_sets", leave_out=topic)
        chosen = get_strategy(strategy, given)
        spec = self.study.with_treatment(chosen.apply(treatment))
        shown = {key: value for key, value in sft.items() if _varied(axes, key)}
        label = " ".join(
            [strategy, *(f"{key}={_short(value)}" for key, value in (given | shown | without).items())]
        )
        return label, spec, given | sft | without, chosen

    def grid(self) -> Iterator[Trial]:
        """All points of the grid, data and sizes innermost, so that a variant's trials follow each other."""
        axes = self.sweep.axes
        assert not axes.continuous
        rates = axes.learning_rate or (None,)
        epochs = axes.epochs or (None,)
        assert not isinstance(rates, Range) and not isinstance(axes.percent, Range)
        regions, orders, topics = (values or (None,) for values in (axes.region, axes.order, axes.leave_out))
        variants = product(axes.strategy, regions, orders, topics, rates, epochs)
        for (strategy, region, order, topic, rate, passes), seed, size, data in product(
            variants, axes.seed, axes.size, axes.data
        ):
            yield self.trial(
                Point(strategy, data, size, seed, rate, passes, axes.percent, region, order, topic)
            )

    @property
    def seeds(self) -> int:
        return len(self.sweep.axes.seed)

    def space(self) -> Space:
        """What a search draws from; the strategy is drawn by its number, a mixture by its shares."""
        axes = self.sweep.axes
        found: dict[str, tuple[Any, ...] | Range] = {"strategy": tuple(range(len(axes.strategy)))}
        if axes.data == "mixture":
            found |= {f"share_{b}": Range(low=0.0, high=1.0) for b in BUCKETS}
        else:
            found["data"] = axes.data
        found["size"] = axes.size
        for name in ("learning_rate", "epochs", "region", "order", "leave_out"):
            values = getattr(axes, name)
            if values is not None:
                found[name] = values
        if isinstance(axes.percent, Range):
            found["percent"] = axes.percent
        return found

    def trials_of(self, config: Config) -> tuple[Trial, ...]:
        """The trials of the point with these values, one for each seed; names as in `space`."""
        return tuple(self.trial(self._point(config, seed)) for seed in self.sweep.axes.seed)

    def _point(self, config: Config, seed: int) -> Point:
        axes = self.sweep.axes
        data = config.get("data")
        if data is None:
            data = mixture([config[f"share_{b}"] for b in BUCKETS])
        percents = axes.percent
        if isinstance(percents, Range):
            percents = tuple(sorted({0.0, round(float(config["percent"]), 1)}))
        rate = config.get("learning_rate")
        return Point(
            strategy=axes.strategy[int(config["strategy"])],
            data=data,
            size=config["size"],
            seed=seed,
            learning_rate=None if rate is None else float(f"{rate:.3g}"),
            epochs=config.get("epochs"),
            percents=percents,
            region=config.get("region"),
            order=config.get("order"),
            leave_out=config.get("leave_out"),
        )

    def rungs_of(self, trial: Trial) -> list[Trial]:
        """A trial with the epochs of each rung of the halving; the trial itself where the sweep has none."""
        if self.sweep.halving is None:
            return [trial]
        return [
            replace(
                trial,
                variant=f"{trial.variant} epochs={epochs}",
                settings={**trial.settings, "epochs": epochs},
                spec=trial.spec.model_copy(
                    update={"sft": trial.spec.sft.model_copy(update={"epochs": epochs})}
                ),
            )
            for epochs in self.sweep.halving.rungs
        ]

    def most_expensive(self) -> list[Trial]:
        """Trials of a search, one of which takes at least as much as any other: each strategy on each data.

        Raises UserError where the strategies do not fit the search's data.
        """
        axes = self.sweep.axes
        epochs = None if axes.epochs is None else max(axes.epochs)
        percents = (0.0, axes.percent.high) if isinstance(axes.percent, Range) else axes.percent
        drawn = (mixture([1.0] * len(BUCKETS)),) if axes.data == "mixture" else axes.data
        return [
            self.trial(Point(strategy, data, size, axes.seed[0], None, epochs, percents))
            for strategy, data, size in product(axes.strategy, drawn, largest(axes.size))
        ]


def largest(sizes: Sequence[int | str]) -> list[int | str]:
    """The largest number among sizes, and ALL, of which nobody knows before scoring whether it is larger."""
    numbers = [size for size in sizes if isinstance(size, int)]
    found: list[int | str] = [max(numbers)] if numbers else []
    return [*found, ALL] if ALL in sizes else found


def mixture(weights: list[float]) -> int | str:
    """Shares in steps of 1/20 that are proportional to the weights of the five buckets, as a mixture's text.

    One bucket alone is that bucket, so that it is a HIT where a study has it.
    """
    total = math.fsum(weights)
    weights = [w / total for w in weights] if total > 0 else [1 / len(weights)] * len(weights)
    exact = [w * SHARE_STEPS for w in weights]
    steps = [math.floor(value) for value in exact]
    order = sorted(range(len(steps)), key=lambda i: (steps[i] - exact[i], i))
    for i in order[: SHARE_STEPS - sum(steps)]:
        steps[i] += 1
    shares = {b: n / SHARE_STEPS for b, n in zip(BUCKETS, steps, strict=True) if n}
    if len(shares) == 1:
        return next(iter(shares))
    return "+".join(f"{b}:{share:g}" for b, share in shares.items())


def _varied(axes: Any, name: str) -> bool:
    values = getattr(axes, name)
    return isinstance(values, Range) or (values is not None and len(values) > 1)


def _hashable(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


def _short(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


def check_sweep(spec: SweepSpec, study: StudySpec, runtime: Runtime) -> None:
    """`check` for the study as each strategy of a sweep sets it; raises UserError naming the strategy."""
    check(study, runtime)
    for field, given, what in (
        ("mastery_after", study.mastery_after, "scores no mastery after tuning"),
        ("few_shot", study.few_shot, "asks no questions after examples"),
    ):
        if given is not None:
            raise UserError(
                f"a sweep {what}",
                place=field,
                value=study.model_dump(mode="json")[field],
                advice="leave it out, and run the study of the recommended setting with it.",
            )
    if study.metric not in (None, spec.search.metric):
        raise UserError(
            f"the study chooses by {study.metric}, and the sweep by {spec.search.metric}",
            place="metric",
            value=study.metric,
            advice=f"set search.metric of the sweep to {study.metric}, or leave metric out of the study.",
        )
    maker, rates = TrialMaker(spec, study), spec.axes.learning_rate
    highest = rates.high if isinstance(rates, Range) else max(rates) if rates else None
    for strategy in spec.axes.strategy:
        trial = maker.trial(Point(strategy, 0, 1, 0, highest))
        try:
            check(trial.spec, runtime)
        except UserError as error:
            raise within(f"strategy {strategy.name}", error) from error
    for topic in spec.axes.leave_out or ():
        if topic != NO_TOPIC:
            sets = study.training_sets.model_copy(update={"leave_out": topic})
            check_left_out(study.model_copy(update={"training_sets": sets}))


def check_sweep_model(spec: SweepSpec, study: StudySpec, runtime: Runtime) -> None:
    """`check_base_model` for the study as each strategy of a sweep sets it; raises UserError naming the strategy."""
    maker, on_cpu = TrialMaker(spec, study), engines_on_cpu(STAGES, runtime)
    for strategy in spec.axes.strategy:
        trial = maker.trial(Point(strategy, 0, 1, 0))
        trained, restored = [trial.spec.sft], trial.spec.restore
        try:
            if study.pocket is not None:
                check_pocket_model(study.pocket.shape, trained, restored, on_cpu)
                continue
            assert study.model is not None
            check_base_model(study.model.path, study.engine, trained, restored, on_cpu)
        except UserError as error:
            raise within(f"strategy {strategy.name}", error) from error
