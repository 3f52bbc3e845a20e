"""What a sweep computes: the axes of its grid or the space of its search, over one study. Hashed."""

from __future__ import annotations

from math import prod
from typing import Annotated, Any, ClassVar, Literal

from pydantic import ConfigDict, Field, field_validator, model_validator

from sftlab.config.frozen import Frozen
from sftlab.strategies.treatment import Bucket, Percent, Size
from sftlab.studies.knowledge.results.choice import METRICS
from sftlab.sweeps.search import HalvingSpec, Limits, Range, SearchSpec, check_length
from sftlab.weights.cut import Order, Region


class StrategyChoice(Frozen):
    """One strategy of the registry with its parameters, such as {name: restore, region: mlp}."""

    model_config = ConfigDict(extra="allow")
    name: str

    @property
    def parameters(self) -> dict[str, Any]:
        return dict(self.model_extra or {})


class Axes(Frozen):
    """The values that trials take; an axis that is left out keeps the study's setting."""

    data: tuple[Bucket, ...] | Literal["mixture"] = Field(
        (0, 1, 2, 3, 4),
        min_length=1,
        description="a list of buckets, mixed sets and mixtures, such as [0, 3, mixed, '0:0.5+4:0.5'], or "
        "mixture, which lets a search choose the shares",
    )
    size: tuple[Size, ...] = Field(
        (240, 1920), min_length=1, description="facts of each set, or all for everything that a bucket holds"
    )
    seed: tuple[int, ...] = Field((0, 1, 2, 3, 4), min_length=1)
    strategy: tuple[StrategyChoice, ...] = Field((StrategyChoice(name="restore"),), min_length=1)
    learning_rate: tuple[Annotated[float, Field(gt=0)], ...] | Range | None = Field(
        None,
        description="a list such as [1.0e-3, 3.0e-4], or in a search a range such as {low: 1.0e-4, high: 1.0e-2}",
    )
    epochs: tuple[Annotated[int, Field(ge=1)], ...] | None = Field(None, min_length=1)
    region: tuple[Region, ...] | None = Field(
        None, min_length=1, description="regions for every strategy that has one and does not set it itself"
    )
    order: tuple[Order, ...] | None = Field(
        None, min_length=1, description="orders of restoration, for every strategy that has one, likewise"
    )
    leave_out: tuple[str, ...] | None = Field(
        None,
        min_length=1,
        description="topics in domain of which no training set has a fact, one at a time, and none for all topics",
    )
    percent: tuple[Percent, ...] | Range | None = Field(
        None, description="a ladder such as [0, 10, 40], or in a search a range such as {low: 0, high: 40}"
    )

    @field_validator("strategy", mode="before")
    @classmethod
    def _names(cls, given: Any) -> Any:
        if not isinstance(given, list | tuple):
            raise ValueError("expected a list of strategies, such as [restore, {name: restore, region: mlp}]")
        return [{"name": entry} if isinstance(entry, str) else entry for entry in given]

    @field_validator("percent")
    @classmethod
    def _percentages(cls, given: Any) -> Any:
        if isinstance(given, Range) and not (given.low >= 0 and given.high <= 100):
            raise ValueError(f"the range {given.low:g} to {given.high:g} leaves 0 to 100")
        if isinstance(given, tuple):
            check_length(given)
            twice = next((value for value in given if given.count(value) > 1), None)
            if twice is not None:
                raise ValueError(f"{twice:g} is listed twice; list each percentage once")
        return given

    @field_validator("learning_rate")
    @classmethod
    def _rates(cls, given: Any) -> Any:
        if isinstance(given, Range) and given.low <= 0:
            raise ValueError(f"the range begins at {given.low:g}, and a rate must be above 0")
        return given

    @field_validator(
        "region", "order", "epochs", "size", "seed", "data", "strategy", "learning_rate", "leave_out"
    )
    @classmethod
    def _once(cls, given: Any) -> Any:
        twice = None
        if isinstance(given, tuple):
            check_length(given)
            twice = next((value for at, value in enumerate(given) if value in given[:at]), None)
        if twice is not None:
            raise ValueError(f"{twice} is listed twice; list each value once")
        return given

    @property
    def points(self) -> int:
        """Points of the grid of these axes, but for their percentages; a range or mixture counts as one value."""
        counted = (
            self.data,
            self.size,
            self.strategy,
            self.learning_rate,
            self.epochs,
            self.region,
            self.order,
            self.leave_out,
        )
        return len(self.seed) * prod(len(axis) for axis in counted if isinstance(axis, tuple))

    @property
    def continuous(self) -> list[str]:
        """Names of the axes that only a search can walk."""
        ranges = [name for name in ("learning_rate", "percent") if isinstance(getattr(self, name), Range)]
        return ranges + (["data"] if self.data == "mixture" else [])


class KnowledgeSearch(SearchSpec):
    """How trials are chosen, and by which metric of the dev splits."""

    metrics: ClassVar[tuple[str, ...]] = tuple(METRICS)
    metric: str = Field("dev", description=f"one of {', '.join(METRICS)}")

    @field_validator("metric", mode="before")
    @classmethod
    def _measured_on_dev(cls, metric: Any) -> Any:
        if metric == "kl":
            raise ValueError(
                "the KL divergence is measured on test facts, which choose nothing; judge by one of "
                f"{', '.join(METRICS)}, and read the divergence in the report"
            )
        return metric


class SweepSpec(Frozen):
    """A study file and what to vary in it."""

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")
    study: str = Field(description="study file, relative to the sweep file: facts, model and all defaults")
    set: dict[str, Any] = Field(
        default_factory=dict, description="fields of the study to override, as {sft: {precision: fp32}}"
    )
    axes: Axes = Axes()
    search: KnowledgeSearch = KnowledgeSearch()
    halving: HalvingSpec | None = None
    plugins: tuple[str, ...] = Field(
        (), description="modules, beside this file or on the PYTHONPATH, that register further strategies"
    )
    limits: Limits = Field(Limits(), description="not part of the sweep's identity")

    def models(self, ladder: int) -> int:
        """Models that are evaluated at most, where the study restores `ladder` percentages."""
        axes, search = self.axes, self.search
        points = axes.points if search.trials is None else search.trials * len(axes.seed)
        if axes.percent is not None:
            ladder = len(axes.percent) if isinstance(axes.percent, tuple) else 2
        return points * ladder * (1 if self.halving is None else len(self.halving.rungs))

    @model_validator(mode="after")
    def _walkable(self) -> SweepSpec:
        if not self.search.walks_ranges and self.axes.continuous:
            names = ", ".join(self.axes.continuous)
            raise ValueError(f"a grid cannot walk the continuous axes {names}; list values, or search")
        if self.halving is not None and self.axes.epochs is not None:
            raise ValueError("`halving` walks the epochs itself; leave `axes.epochs` out")
        if self.halving is not None and "metric" not in self.search.model_fields_set:
            known = ", ".join(self.search.metrics)
            raise ValueError(f"`halving` needs a `search.metric` by which trials fall behind, one of {known}")
        return self
