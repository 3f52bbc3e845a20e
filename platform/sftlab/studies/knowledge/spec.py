"""What a study computes. Everything here is hashed into the ids of its results."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, field_validator, model_validator

from sftlab.config.frozen import Flag, Frozen
from sftlab.errors import UserError
from sftlab.inference.spec import EngineSpec
from sftlab.measurements.spec import AnswerSpec, DivergenceSpec, FewShotSpec, GradientSpec, MasterySpec
from sftlab.pocket.spec import PocketSpec
from sftlab.strategies import RestoreSpec, TrainingSetsSpec, Treatment, with_method
from sftlab.studies.knowledge.results.choice import DEV, METRICS, Metric
from sftlab.training.spec import SFTSpec

CHOSEN: Literal["chosen"] = "chosen"
MOST_MODELS = 200_000  # of one study or sweep: a plan of that many takes a minute and a gigabyte


def check_models(models: int) -> None:
    """Raises ValueError for more evaluated models than a plan can hold."""
    if models > MOST_MODELS:
        raise ValueError(
            f"comes to {models:,} models to evaluate, and at most {MOST_MODELS:,} can be planned at once; list fewer "
            "values, or make several files, whose results are found again"
        )


def _after(value: Any) -> Any:
    if isinstance(value, bool) or (isinstance(value, str) and value.isdecimal()):
        return value  # refused by Frozen: such a value is no number
    if not (isinstance(value, int | float) and 0 <= value <= 100) and value != CHOSEN:
        raise ValueError(f"expected a percentage of restore.percents, or {CHOSEN}")
    return value


AfterPercent = Annotated[float | Literal["chosen"], BeforeValidator(_after)]


class FactsSpec(Frozen):
    """Where facts come from when the base model is not the pocket model."""

    source: str = Field(
        description="EntityQuestions zip or folder, or a .jsonl, .ndjson, .json or .parquet file of custom facts"
    )
    templates: str | None = Field(None, description="YAML of topics; the published 24 topics if unset")
    in_domain: tuple[str, ...] | None = Field(
        None,
        min_length=1,
        description="topics that training sets are drawn from, and no others; as the topics say if unset",
    )
    limit: dict[Literal["train", "test", "test_ood", "dev", "dev_ood"], Annotated[int, Field(ge=0)]] = Field(
        default_factory=dict, description="facts to keep of a split, drawn evenly over topics; all if unset"
    )
    seed: int = Field(0, description="seed of the draw that `limit` asks for")
    exclude_overlap: Flag = Field(
        None,
        description="leave out of train, and of dev, the facts that a split which is asked later has too: the same "
        "question, or the same subject and answer",
    )

    exclude_answered: Flag = Field(
        None, description="leave out of all splits the facts whose question contains an accepted name"
    )

    @field_validator("in_domain")
    @classmethod
    def _in_one_order(cls, topics: tuple[str, ...] | None) -> tuple[str, ...] | None:
        if topics is not None and len(set(topics)) != len(topics):
            twice = next(topic for topic in topics if topics.count(topic) > 1)
            raise ValueError(f"{twice} is listed twice; list each topic once")
        return None if topics is None else tuple(sorted(topics))


class ModelSpec(Frozen):
    """A base model as data: a Hugging Face folder, identified by the hash of its files."""

    path: str = Field(description="folder with config.json, safetensors and tokenizer")
    revision: str | None = Field(None, description="hub commit of the files, where the folder has one")
    parameters: int | None = Field(
        None, ge=1, description="weights of the model, for plans without the folder"
    )
    tensor_parallel: tuple[int, ...] | None = Field(
        None, description="numbers of GPUs over which an engine can split each layer; any if unset"
    )
    memory_gib: float | None = Field(
        None, gt=0, description="GPU memory of an engine, over all of its GPUs: weights, cache and workspace"
    )


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
    mastery_after: tuple[AfterPercent, ...] | None = Field(
        None,
        min_length=1,
        description="percentages of the ladder after which mastery of the test facts is scored again, and chosen for "
        "the one that dev chooses for each run; never if unset",
    )
    few_shot: FewShotSpec | None = Field(
        None,
        description="ask the base model the test questions after solved ones of their topics; not if unset",
    )
    gradients: GradientSpec | None = Field(None, description="measure gradients of facts; not if unset")
    metric: str | None = Field(
        None, description=f"what chooses on dev: one of {', '.join(METRICS)}; dev if unset"
    )
    plugins: tuple[str, ...] | None = Field(
        None, description="modules, beside this file or on the PYTHONPATH, that register further strategies"
    )

    @field_validator("restore")
    @classmethod
    def _known_method(cls, restore: RestoreSpec) -> RestoreSpec:
        try:
            return with_method(restore)
        except UserError as error:
            raise ValueError(str(error)) from error

    @field_validator("metric")
    @classmethod
    def _known_metric(cls, name: str | None) -> str | None:
        if name is not None and name not in METRICS:
            raise ValueError(f"expected one of {', '.join(METRICS)}")
        return None if name == DEV else name  # the ids of results hold it only where it is set

    @model_validator(mode="after")
    def _after_percents_of_the_ladder(self) -> StudySpec:
        for at in self.mastery_after or ():
            if at != CHOSEN and at not in self.restore.percents:
                ladder = ", ".join(f"{percent:g}" for percent in self.restore.percents)
                raise ValueError(
                    f"mastery_after: {at:g} % is not of the ladder; restore.percents has {ladder}"
                )
        return self

    @field_validator("mastery_after")
    @classmethod
    def _ascending(cls, given: tuple[float | str, ...] | None) -> tuple[float | str, ...] | None:
        if given is None:
            return None
        twice = next((at for at in given if given.count(at) > 1), None)
        if twice is not None:
            raise ValueError(f"{twice} is listed twice; list each value once")
        numbers = sorted(at for at in given if not isinstance(at, str))
        return (*numbers, *(at for at in given if isinstance(at, str)))

    @model_validator(mode="after")
    def _one_origin(self) -> StudySpec:
        if self.pocket is None and (self.facts is None or self.model is None):
            raise ValueError("give either `pocket`, or both `facts` and `model`")
        if self.pocket is not None and (self.facts is not None or self.model is not None):
            raise ValueError("`pocket` makes its own facts and model; leave `facts` and `model` out")
        if self.gradients is not None and self.gradients.percent not in self.restore.percents:
            ladder = ", ".join(f"{percent:g}" for percent in self.restore.percents if percent)
            raise ValueError(
                f"gradients.percent is {self.gradients.percent:g}, which is not on the ladder; expected one of {ladder}"
            )
        grid = self.training_sets
        check_models(len(grid.buckets) * len(grid.sizes) * len(grid.seeds) * len(self.restore.percents))
        return self

    @property
    def chosen_by(self) -> Metric:
        """What chooses on dev."""
        return METRICS[self.metric or DEV]

    @property
    def treatment(self) -> Treatment:
        """The part of this study that a strategy may change."""
        return Treatment(sft=self.sft, restore=self.restore, training_sets=self.training_sets)

    def with_treatment(self, treatment: Treatment) -> StudySpec:
        """This study with another treatment. Raises UserError as `strategies.registry.with_method` does."""
        parts = {"sft": treatment.sft, "training_sets": treatment.training_sets}
        return self.model_copy(update=parts | {"restore": with_method(treatment.restore)})
