"""The part of a study that a strategy may change: fine-tuning, restoration and training sets."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field, field_validator, model_validator

from sftlab.config.frozen import Frozen
from sftlab.errors import UserError
from sftlab.facts.training_sets import ALL, Balance, DrawRule, Mixture, canonical_bucket
from sftlab.training.spec import SFTSpec
from sftlab.weights.cut import Measure, Order, Region, SelectionKeys, ShareOf
from sftlab.weights.spec import LayerRange

MOST_VALUES = 1000  # of one axis


def _bucket(value: int | str) -> int | str:
    """A bucket or mixture in its one writing, so that equal mixtures share ids: 4:0.50+1:0.5 is 1:0.5+4:0.5."""
    try:
        return canonical_bucket(value)
    except UserError as error:
        raise ValueError(str(error)) from error


def _no_truth(value: Any) -> Any:
    if isinstance(value, bool):  # what YAML makes of yes, no, on and off
        raise ValueError("expected a bucket 0 to 4, mixed, or a mixture such as 1:0.25+4:0.75")
    return value


Bucket = Annotated[
    int | str, BeforeValidator(_no_truth), AfterValidator(_bucket)
]  # 0 to 4, "mixed", or a mixture "1:0.25+4:0.75"


def _size(value: Any) -> Any:
    if isinstance(value, bool) or (isinstance(value, str) and value.isdecimal()):
        return value  # refused by Frozen: such a value is no number
    whole = isinstance(value, int) or (isinstance(value, float) and value.is_integer())
    if not (whole and value >= 1) and value != ALL:
        raise ValueError(
            f"expected a whole number of at least 1, or {ALL} for everything that a bucket holds"
        )
    return value


Size = Annotated[int | Literal["all"], BeforeValidator(_size)]
Percent = Annotated[float, Field(ge=0, le=100)]


class TrainingSetsSpec(Frozen):
    """The grid of training sets: every bucket x size x seed is a cell."""

    buckets: tuple[Bucket, ...] = Field((0, 1, 2, 3, 4), min_length=1, max_length=MOST_VALUES)
    sizes: tuple[Size, ...] = Field(
        (240, 1920),
        min_length=1,
        max_length=MOST_VALUES,
        description="facts of each set, or all for everything that a bucket holds",
    )
    seeds: tuple[int, ...] = Field((0,), min_length=1, max_length=MOST_VALUES)
    balance: Balance | None = Field(
        None,
        description="even: as many facts of every topic; fill: as even as topics reach, the rest from the others; "
        "none: whatever the topic; even if unset",
    )
    mixed: Mixture | None = Field(
        None,
        description="the bucket mixed: even over the buckets, or population, as often as they occur (the paper's); "
        "even if unset",
    )
    margin: float | None = Field(
        None,
        gt=0,
        lt=1,
        description="draw only facts that are in their bucket with at least this probability, and any of bucket 0; all "
        "if unset",
    )

    replay: float | None = Field(
        None,
        gt=0,
        le=1,
        description="well-mastered facts (bucket 4) that every set has beside its others, as a share of its size; none "
        "if unset",
    )

    leave_out: str | None = Field(
        None,
        description="topic in domain of which no set has a fact, to see what its test facts lose; none if unset",
    )

    @property
    def rule(self) -> DrawRule:
        return DrawRule(self.balance or "even", self.mixed or "even", self.replay or 0, self.leave_out)

    @field_validator("balance", "mixed")
    @classmethod
    def _even_is_the_default(cls, value: str | None) -> str | None:
        return None if value == "even" else value

    @field_validator("buckets", "sizes", "seeds")
    @classmethod
    def _each_once(cls, values: tuple[int | str, ...]) -> tuple[int | str, ...]:
        twice = next((value for value in values if values.count(value) > 1), None)
        if twice is not None:
            raise ValueError(f"{twice} is listed twice; list each value once")
        return values


class RestoreSpec(Frozen):
    """The ladder of every tuned model: the restoration (paper, section 5.1), or another edit by `method`.

    The strategies are not known here; `strategies.registry.with_method` checks `method` and `parameters`.
    """

    percents: tuple[Percent, ...] = Field((0, 1, 3, 5, 10, 20, 40, 60), min_length=1, max_length=MOST_VALUES)
    region: Region = "layers"
    order: Order = "top"
    seed: int = Field(0, description="seed of the orders random and shuffled")
    measure: Measure | None = Field(
        None, description="change that top, bottom and shuffled rank by; relative if unset"
    )
    layers: LayerRange | None = Field(None, description='layers of the region, as "0-3"; all if unset')
    share_of: ShareOf | None = Field(
        None,
        description="what a percentage is a share of: weights, the total change (l1) or its squares (l2); weights if "
        "unset",
    )
    method: str | None = Field(None, description="strategy that edits weights in place of the restoration")
    parameters: dict[str, Any] | None = Field(None, description="parameters of `method`")

    @property
    def selection(self) -> SelectionKeys:
        """Which weights are restored first, as keyword arguments of `sftlab.weights.profile`."""
        return {
            "region": self.region,
            "order": self.order,
            "seed": self.seed,
            "measure": self.measure or "relative",
            "layers": self.layers,
            "share_of": self.share_of or "weights",
        }

    @model_validator(mode="after")
    def _parameters_of_a_method(self) -> RestoreSpec:
        if self.method is None and self.parameters is not None:
            raise ValueError("`parameters` belong to a `method`; name one or leave them out")
        return self

    @field_validator("measure")
    @classmethod
    def _relative_is_the_default(cls, measure: Measure | None) -> Measure | None:
        return None if measure == "relative" else measure

    @field_validator("share_of")
    @classmethod
    def _weights_are_the_default(cls, share_of: ShareOf | None) -> ShareOf | None:
        return None if share_of == "weights" else share_of

    @field_validator("percents")
    @classmethod
    def _sorted_with_zero(cls, percents: tuple[float, ...]) -> tuple[float, ...]:
        if len(set(percents)) != len(percents):
            raise ValueError("a percentage is listed twice")
        return tuple(sorted({0.0, *percents}))


class Treatment(Frozen):
    """What a strategy is given and returns. The other parts of a study are the same for all strategies."""

    sft: SFTSpec = SFTSpec()
    restore: RestoreSpec = RestoreSpec()
    training_sets: TrainingSetsSpec = TrainingSetsSpec()
