"""Search spaces, samplers, successive halving and limits of sweeps."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

from pydantic import Field, field_validator, model_validator

from sftlab.config.frozen import Frozen
from sftlab.strategies.treatment import MOST_VALUES


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


def check_length(values: tuple[Any, ...]) -> None:
    """Raises ValueError where an axis lists more values than a sweep can have."""
    if len(values) > MOST_VALUES:
        raise ValueError(f"lists {len(values):,} values; list at most {MOST_VALUES:,}")


class SearchSpec(Frozen):
    """How trials are chosen: all points of the grid, a random draw, or Optuna's sampler.

    A study derives from it, to name its metrics and their default.
    """

    metrics: ClassVar[tuple[str, ...]]
    kind: Literal["grid", "random", "optuna"] = "grid"
    trials: int | None = Field(
        None, ge=1, description="points of a random or optuna search, each tried with all of axes.seed"
    )
    metric: str
    seed: int = Field(0, ge=0, description="seed of the draws")

    @field_validator("metric", mode="before")
    @classmethod
    def _named(cls, metric: Any) -> Any:
        if not metric:
            raise ValueError(f"a search needs a metric, one of {', '.join(cls.metrics)}")
        return metric

    @field_validator("metric")
    @classmethod
    def _made(cls, metric: str) -> str:
        if metric not in cls.metrics:
            raise ValueError(f"no stage makes this metric; known ones are {', '.join(cls.metrics)}")
        return metric

    @model_validator(mode="after")
    def _counted(self) -> SearchSpec:
        if self.kind != "grid" and self.trials is None:
            raise ValueError(f"a {self.kind} search needs `trials`, the number of trials to run")
        if self.kind == "grid" and self.trials is not None:
            raise ValueError("a grid runs all its points; leave `trials` out, or choose random or optuna")
        if self.kind == "optuna" and "metric" not in self.model_fields_set:
            raise ValueError(
                f"an optuna search needs a `metric` to look for, one of {', '.join(self.metrics)}"
            )
        return self

    @property
    def walks_ranges(self) -> bool:
        """Whether its points may come from ranges and mixtures, which have no list of values."""
        return self.kind != "grid"


class HalvingSpec(Frozen):
    """Asynchronous successive halving (ASHA) over epochs: rungs of 1, factor, factor^2, ... epochs.

    A rung is a separate fine-tuning run with that many epochs, so that its learning rate decays to zero.
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
    max_cost: int | None = Field(None, ge=1, description="generated and trained tokens together")
