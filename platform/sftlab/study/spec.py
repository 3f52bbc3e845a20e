"""What a study computes. Everything here is hashed into the ids of its results."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field, field_validator, model_validator

from sftlab.errors import UserError
from sftlab.facts.training_sets import canonical_bucket
from sftlab.frozen import Frozen
from sftlab.inference.spec import AnswerSpec, DivergenceSpec, EngineSpec, MasterySpec
from sftlab.pocket.spec import PocketSpec
from sftlab.training.spec import SFTSpec
from sftlab.weights.cut import Measure, Order, Region
from sftlab.weights.spec import LayerRange

MOST_VALUES = 1000  # of one axis
MOST_MODELS = 200_000  # of one study or sweep: a plan of that many takes a minute and a gigabyte


def check_models(models: int) -> None:
    """Raises ValueError for more evaluated models than a plan can hold."""
    if models > MOST_MODELS:
        raise ValueError(
            f"comes to {models:,} models to evaluate, and at most {MOST_MODELS:,} can be planned at once; list fewer "
            "values, or make several files, whose results are found again"
        )


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
Percent = Annotated[float, Field(ge=0, le=100)]


class FactsSpec(Frozen):
    """Where facts come from when the base model is not the pocket model."""

    source: str = Field(
        description="EntityQuestions zip or folder, or a .jsonl or .parquet file of own facts"
    )
    templates: str | None = Field(None, description="YAML of topics; the published 24 topics if unset")
    limit: dict[Literal["train", "test", "test_ood", "dev", "dev_ood"], Annotated[int, Field(ge=0)]] = Field(
        default_factory=dict, description="facts to keep of a split, drawn evenly over topics; all if unset"
    )
    seed: int = Field(0, description="seed of the draw that `limit` asks for")


class ModelSpec(Frozen):
    """A base model as data: a Hugging Face folder, told apart by the hash of its files."""

    path: str = Field(description="folder with config.json, safetensors and tokenizer")
    revision: str | None = Field(None, description="hub commit of the files, where the folder has one")
    parameters: int | None = Field(
        None, ge=1, description="weights of the model, for plans without the folder"
    )


class TrainingSetsSpec(Frozen):
    """The grid of training sets: every bucket x size x seed is a cell."""

    buckets: tuple[Bucket, ...] = Field((0, 1, 2, 3, 4), min_length=1, max_length=MOST_VALUES)
    sizes: tuple[Annotated[int, Field(ge=1)], ...] = Field((240, 1920), min_length=1, max_length=MOST_VALUES)
    seeds: tuple[int, ...] = Field((0,), min_length=1, max_length=MOST_VALUES)

    @field_validator("buckets", "sizes", "seeds")
    @classmethod
    def _each_once(cls, values: tuple[int | str, ...]) -> tuple[int | str, ...]:
        twice = next((value for value in values if values.count(value) > 1), None)
        if twice is not None:
            raise ValueError(f"{twice} is listed twice; list each value once")
        return values


class RestoreSpec(Frozen):
    """The ladder of every tuned model: the restoration (paper, section 5.1), or another edit by `method`."""

    percents: tuple[Percent, ...] = Field((0, 1, 3, 5, 10, 20, 40, 60), min_length=1, max_length=MOST_VALUES)
    region: Region = "layers"
    order: Order = "top"
    seed: int = Field(0, description="seed of the random order")
    measure: Measure | None = Field(None, description="change that top and bottom rank by; relative if unset")
    layers: LayerRange | None = Field(None, description='layers of the region, as "0-3"; all if unset')
    method: str | None = Field(None, description="strategy that edits weights in place of the restoration")
    parameters: dict[str, Any] | None = Field(None, description="parameters of `method`")

    @model_validator(mode="before")
    @classmethod
    def _whole_parameters(cls, data: Any) -> Any:
        """Writes the defaults of a method's parameters out, so that a default and its value share ids."""
        if not isinstance(data, dict) or data.get("method") is None:
            return data
        from sftlab.strategies import get_edit_strategy

        try:
            strategy = get_edit_strategy(data["method"], data.get("parameters"))
        except UserError as error:
            raise ValueError(str(error)) from error
        return data | {"parameters": strategy.model_dump(mode="json")}

    @model_validator(mode="after")
    def _method_and_percents(self) -> RestoreSpec:
        if self.method is None:
            if self.parameters is not None:
                raise ValueError("`parameters` belong to a `method`; name one or leave them out")
            return self
        from sftlab.strategies import get_edit_strategy

        try:
            get_edit_strategy(self.method, self.parameters).check_percents(self.percents)
        except UserError as error:
            raise ValueError(str(error)) from error
        return self

    @field_validator("measure")
    @classmethod
    def _relative_is_the_default(cls, measure: Measure | None) -> Measure | None:
        return None if measure == "relative" else measure

    @field_validator("percents")
    @classmethod
    def _sorted_with_zero(cls, percents: tuple[float, ...]) -> tuple[float, ...]:
        if len(set(percents)) != len(percents):
            raise ValueError("a percentage is listed twice")
        return tuple(sorted({0.0, *percents}))


class StudySpec(Frozen):
    """One study: a base model, its facts, the grid of fine-tuning runs and their restoration ladders."""

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")
    pocket: PocketSpec | None = Field(None, description="pre-train a pocket model; else give facts and model")
    facts: FactsSpec | None = None
    model: ModelSpec | None = None
    engine: EngineSpec = EngineSpec()
    mastery: MasterySpec = MasterySpec()
    training_sets: TrainingSetsSpec = TrainingSetsSpec()
    sft: SFTSpec = SFTSpec()
    restore: RestoreSpec = RestoreSpec()
    answers: AnswerSpec = AnswerSpec()
    divergence: DivergenceSpec = DivergenceSpec()
    plugins: tuple[str, ...] | None = Field(
        None, description="modules, beside this file or on the PYTHONPATH, that register further strategies"
    )

    @model_validator(mode="after")
    def _one_origin(self) -> StudySpec:
        if self.pocket is None and (self.facts is None or self.model is None):
            raise ValueError("give either `pocket`, or both `facts` and `model`")
        if self.pocket is not None and (self.facts is not None or self.model is not None):
            raise ValueError("`pocket` makes its own facts and model; leave `facts` and `model` out")
        grid = self.training_sets
        check_models(len(grid.buckets) * len(grid.sizes) * len(grid.seeds) * len(self.restore.percents))
        return self
