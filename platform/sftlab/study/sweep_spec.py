"""What a sweep computes: the axes of its grid or the space of its search, over one study. Hashed."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field, field_validator, model_validator

from sftlab.frozen import Frozen
from sftlab.study.spec import Bucket, Percent

# What a trial can be judged by; a stage makes each, and all but the last rest on the dev splits.
METRICS = ("dev", "dev_in_domain", "dev_out_of_domain", "kl")
MODES = {"dev": "max", "dev_in_domain": "max", "dev_out_of_domain": "max", "kl": "min"}


class StrategyChoice(Frozen):
    """One strategy of the registry with its parameters, such as {name: restore, region: mlp}."""

    model_config = ConfigDict(extra="allow")
    name: str

    @property
    def parameters(self) -> dict[str, Any]:
        return dict(self.model_extra or {})


class Range(Frozen):
    """A continuous axis of a search, ends included."""

    low: float
    high: float
    log: bool = Field(False, description="draw evenly over the logarithm")

    @model_validator(mode="after")
    def _rising(self) -> Range:
        if not self.low < self.high:
            raise ValueError(f"low ({self.low:g}) must lie below high ({self.high:g})")
        if self.log and self.low <= 0:
            raise ValueError("a logarithmic range must begin above 0")
        return self


class Axes(Frozen):
    """The values that trials take; an axis that is left out keeps the study's setting."""

    data: tuple[Bucket, ...] | Literal["mixture"] = Field(
        (0, 1, 2, 3, 4),
        min_length=1,
        description='buckets, "mixed", mixtures such as "0:0.5+4:0.5"; "mixture" lets a search choose shares',
    )
    size: tuple[Annotated[int, Field(ge=1)], ...] = Field((240, 1920), min_length=1)
    seed: tuple[int, ...] = Field((0, 1, 2, 3, 4), min_length=1)
    strategy: tuple[StrategyChoice, ...] = Field((StrategyChoice(name="restore"),), min_length=1)
    learning_rate: tuple[Annotated[float, Field(gt=0)], ...] | Range | None = None
    epochs: tuple[Annotated[int, Field(ge=1)], ...] | None = None
    percent: tuple[Percent, ...] | Range | None = Field(
        None, description="restoration ladder; the study's ladder if unset; a range for a search"
    )

    @field_validator("strategy", mode="before")
    @classmethod
    def _names(cls, given: Any) -> Any:
        return [{"name": entry} if isinstance(entry, str) else entry for entry in given]

    @property
    def continuous(self) -> list[str]:
        """Names of the axes that only a search can walk."""
        ranges = [name for name in ("learning_rate", "percent") if isinstance(getattr(self, name), Range)]
        return ranges + (["data"] if self.data == "mixture" else [])


class SearchSpec(Frozen):
    """How trials are chosen: all points of the grid, a random draw, or Optuna's sampler on the dev split."""

    kind: Literal["grid", "random", "optuna"] = "grid"
    trials: int | None = Field(None, ge=1, description="trials of a random or optuna search")
    metric: str = Field("dev", description=f"one of {', '.join(METRICS)}")
    seed: int = Field(0, ge=0, description="seed of the draws")

    @field_validator("metric")
    @classmethod
    def _made(cls, metric: str) -> str:
        if metric not in METRICS:
            raise ValueError(f"no stage makes this metric; known ones are {', '.join(METRICS)}")
        return metric

    @model_validator(mode="after")
    def _counted(self) -> SearchSpec:
        if self.kind != "grid" and self.trials is None:
            raise ValueError(f"a {self.kind} search needs `trials`, the number of trials to run")
        if self.kind == "grid" and self.trials is not None:
            raise ValueError("a grid runs all its points; leave `trials` out, or choose random or optuna")
        return self


class HalvingSpec(Frozen):
    """Asynchronous successive halving (ASHA) over epochs: rungs of 1, factor, factor^2, ... epochs.

    A rung is a fine-tuning run of its own with that many epochs, so that its learning rate decays to zero.
    """

    max_epochs: int = Field(ge=2)
    factor: int = Field(2, ge=2)

    @property
    def rungs(self) -> tuple[int, ...]:
        found = [1]
        while found[-1] * self.factor <= self.max_epochs:
            found.append(found[-1] * self.factor)
        return tuple(found)


class Limits(Frozen):
    """What a sweep may cost at most; a larger one is refused with its planned cost before anything runs."""

    max_cells: int | None = Field(None, ge=1, description="fine-tuned models")
    max_models: int | None = Field(None, ge=1, description="evaluated models")
    max_generated_tokens: int | None = Field(None, ge=1, description="upper bound of what is generated")
    max_trained_tokens: int | None = Field(None, ge=1, description="estimate of what is trained on")


class SweepSpec(Frozen):
    """A study file and what to vary in it."""

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")
    study: str = Field(description="study file, relative to the sweep file: facts, model and all defaults")
    set: dict[str, Any] = Field(
        default_factory=dict, description="fields of the study to override, as {sft: {precision: fp32}}"
    )
    axes: Axes = Axes()
    search: SearchSpec = SearchSpec()
    halving: HalvingSpec | None = None
    plugins: tuple[str, ...] = Field((), description="Python modules that register further strategies")
    limits: Limits = Field(Limits(), description="not part of the sweep's identity")

    @model_validator(mode="after")
    def _walkable(self) -> SweepSpec:
        if self.search.kind == "grid" and self.axes.continuous:
            names = ", ".join(self.axes.continuous)
            raise ValueError(f"a grid cannot walk the continuous axes {names}; list values, or search")
        if self.halving is not None and self.axes.epochs is not None:
            raise ValueError("`halving` walks the epochs itself; leave `axes.epochs` out")
        return self
