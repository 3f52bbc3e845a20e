"""What a survey computes: bases, data sets, benchmarks, and the groups of runs over them. Hashed into ids."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, get_args

from pydantic import Field, field_validator, model_validator

from sftlab.config.frozen import Frozen
from sftlab.datasets.benchmark_file import BenchmarkFileSpec
from sftlab.datasets.judgments import JudgmentsSpec
from sftlab.datasets.spec import DataFileSpec, DrawSpec, TemplateSpec
from sftlab.errors import UserError
from sftlab.inference.spec import EngineSpec
from sftlab.measurements.spec import CodeFileSpec, CodeSpec, HarnessSpec, LikelihoodSpec
from sftlab.pocket.skill_data import SETS
from sftlab.pocket.skills import SKILLS
from sftlab.pocket.spec import FamilySpec, Shape
from sftlab.strategies import RestoreSpec, with_method
from sftlab.strategies.treatment import Percent
from sftlab.studies.survey.about import AboutBenchmark, AboutData
from sftlab.studies.survey.measure_spec import MeasureSpec
from sftlab.training.spec import LoRASpec, SFTSpec

Together = Literal["each", "all", "leave-one-out"]
TOGETHER: tuple[Together, ...] = get_args(Together)
MOST_EPOCHS = 10_000  # of a run; a plan lists those that are kept
PLAIN = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$"


class WorldSpec(Frozen):
    """The people and words of the pocket survey."""

    seed: int = Field(default=0, ge=0, description="Seed of names, facts and the second language.")
    people: int = Field(default=120, ge=6, description="People; a third for each of training, test and text.")


class PocketBaseSpec(FamilySpec):
    """A base that is pre-trained here."""

    continues: str | None = Field(
        default=None, description="Name of the base whose weights this one starts from."
    )
    language: str = Field(default="first", description="Label for reports.")


class FolderBaseSpec(Frozen):
    """A base as data: a Hugging Face folder, identified by the hash of its files."""

    path: str = Field(description="Folder with config.json, safetensors and tokenizer.")
    family: str = Field(description="Label for reports, such as llama3.")
    language: str = Field(default="en", description="Label for reports, such as en or ja.")
    parameters: int | None = Field(default=None, ge=1, description="Weights, for plans without the folder.")


class BasesSpec(Frozen):
    """The base models by name."""

    pocket: dict[str, PocketBaseSpec] = Field(default_factory=dict, description="Bases pre-trained here.")
    folders: dict[str, FolderBaseSpec] = Field(default_factory=dict, description="Bases in folders.")

    @property
    def names(self) -> tuple[str, ...]:
        return (*self.pocket, *self.folders)

    def shape(self, name: str) -> Shape:
        """The shape of a pocket base: that of the base with which its chain of continued bases begins."""
        base = self.pocket[name]
        return base.shape if base.continues is None else self.shape(base.continues)


class DataSpec(Frozen):
    """The instruction sets by name."""

    pocket: tuple[str, ...] = Field(default=(), description=f"Sets of the pocket world: {', '.join(SETS)}.")
    files: dict[str, DataFileSpec] = Field(default_factory=dict, description="Sets in files.")
    draw: DrawSpec = Field(default=DrawSpec(), description="Which examples of a set are trained on.")

    @property
    def names(self) -> tuple[str, ...]:
        return (*self.pocket, *self.files)


class BenchmarksSpec(Frozen):
    """The benchmarks by name."""

    pocket: Literal["all"] | tuple[str, ...] = Field(
        default=(), description=f"Benchmarks of the pocket world: all, or some of {', '.join(SKILLS)}."
    )
    files: dict[str, BenchmarkFileSpec] = Field(default_factory=dict, description="Benchmarks in files.")
    harness: HarnessSpec | None = Field(default=None, description="Tasks of lm-eval by name.")
    code: CodeSpec | None = Field(default=None, description="Programming problems; what models write is run.")
    judged: dict[str, JudgmentsSpec] = Field(
        default_factory=dict, description="Scores that a judge model gave elsewhere, from its result files."
    )
    questions: int = Field(default=60, ge=1, description="Questions of each pocket benchmark, at most.")
    max_tokens: int = Field(default=24, ge=1, description="Longest answer to a pocket question, in tokens.")

    @property
    def pocket_names(self) -> tuple[str, ...]:
        return tuple(SKILLS) if self.pocket == "all" else self.pocket

    @property
    def names(self) -> tuple[str, ...]:
        """The benchmarks, and their few-shot forms."""
        return (*self.pocket_names, *self.files, *self.few_shot, *self.tasks, *self.programs)

    @property
    def plain(self) -> tuple[str, ...]:
        """The benchmarks that are asked in the survey's template, without examples."""
        return (*self.pocket_names, *self.files)

    @property
    def programs(self) -> dict[str, CodeFileSpec]:
        """The files of programming problems."""
        return {} if self.code is None else self.code.files

    @property
    def tasks(self) -> tuple[str, ...]:
        """The tasks of lm-eval."""
        return () if self.harness is None else self.harness.tasks

    @property
    def few_shot(self) -> dict[str, str]:
        """The names of few-shot forms, with the files that they are forms of."""
        return {f"{name}-{file.shots}shot": name for name, file in self.files.items() if file.shots}

    def file(self, name: str) -> BenchmarkFileSpec | None:
        """The file of a benchmark or of a few-shot form; None for a pocket benchmark."""
        return self.files.get(self.few_shot.get(name, name))


class MethodSpec(Frozen):
    """Full fine-tuning, LoRA, or a strategy; what it changes in the survey's `sft`. In short `full` or `lora`."""

    lora: LoRASpec | None = Field(default=None, description="Adapters in place of all weights.")
    strategy: str | None = Field(
        default=None, description="Strategy that changes fine-tuning, or edits the tuned model."
    )
    parameters: dict[str, Any] | None = Field(default=None, description="Parameters of the strategy.")
    percent: Percent | None = Field(
        default=None, description="Percentage of a strategy that edits the tuned model."
    )
    label: str | None = Field(
        default=None,
        pattern=PLAIN,
        description="Name in tables; full, lora, or the strategy and its percentage.",
    )
    learning_rate: float | None = Field(default=None, gt=0, description="Peak rate, in place of sft's.")
    batch_size: int | None = Field(default=None, ge=1, description="Examples of a step, in place of sft's.")

    @model_validator(mode="before")
    @classmethod
    def _in_short(cls, given: Any) -> Any:
        if given == "full":
            return {}
        return {"lora": {}} if given == "lora" else given

    @model_validator(mode="after")
    def _belong_to_a_strategy(self) -> MethodSpec:
        if self.strategy is None and (self.parameters is not None or self.percent is not None):
            raise ValueError("`parameters` and `percent` belong to a `strategy`; name one or leave them out")
        return self

    @property
    def name(self) -> str:
        if self.label is not None:
            return self.label
        if self.strategy is None:
            return "full" if self.lora is None else "lora"
        return self.strategy if self.percent is None else f"{self.strategy}-{self.percent:g}"


class RunsSpec(Frozen):
    """One group of runs: every combination of what it lists."""

    bases: tuple[str, ...] | None = Field(default=None, description="Bases; all if unset.")
    data: Together | tuple[str, ...] = Field(
        default="each",
        description="Sets one by one (each, or those listed), all in one set, or all but one each time.",
    )
    sizes: tuple[int, ...] = Field(min_length=1, description="Examples of each set.")
    methods: tuple[MethodSpec, ...] = Field(default=(MethodSpec(),), min_length=1, description="full, lora.")
    schedule: Literal["cosine", "linear", "constant"] | None = Field(
        default=None, description="Schedule of the rate, in place of sft's."
    )
    epochs: int | None = Field(default=None, ge=1, description="Passes over the set, in place of sft's.")
    keep_epochs: tuple[int, ...] | Literal["all", "last"] = Field(
        default="last", description="Epochs after which the model is kept, all or the last."
    )
    seeds: tuple[int, ...] = Field(default=(0,), min_length=1, description="Seeds of the training order.")


class LadderSpec(RestoreSpec):
    """Restoration of tuned models: every model that the fields select is also scored at each percentage."""

    percents: tuple[Percent, ...] = Field(
        (0, 5, 20, 60), min_length=1, description="Percentages of weights that go back to the base's values."
    )
    bases: tuple[str, ...] | None = Field(default=None, description="Bases of the models; all if unset.")
    data: tuple[str, ...] | None = Field(
        default=None, description="Training sets of the models, `all` included; any if unset."
    )
    sizes: tuple[int, ...] | None = Field(default=None, description="Sizes of these sets; any if unset.")
    methods: tuple[str, ...] | None = Field(
        default=("full",), description="Methods of the models; any if null. Models are those of last epochs."
    )

    @field_validator("percents")
    @classmethod
    def _has_a_rung(cls, percents: tuple[float, ...]) -> tuple[float, ...]:
        if not any(percents):
            raise ValueError("no percentage above 0, so that nothing is restored; add one, such as 5")
        return percents


class AboutSpec(Frozen):
    """What the report uses of names, as `sftlab compare --about` has it; no model is built again for it."""

    data: dict[str, AboutData] = Field(default_factory=dict, description="Facts about sets, by name.")
    benchmarks: dict[str, AboutBenchmark] = Field(
        default_factory=dict, description="Facts about benchmarks, by name."
    )


class SurveySpec(Frozen):
    """One survey: bases x sets x methods x sizes x epochs, scored on benchmarks."""

    name: str = Field(pattern=PLAIN, description="Label of the survey.")
    root: str | None = Field(
        default=None,
        description="Folder that paths of bases, data and benchmarks are relative to; unset: the folder of the file.",
    )
    world: WorldSpec = Field(default=WorldSpec(), description="The pocket world, where anything is of it.")
    bases: BasesSpec = Field(description="The base models.")
    data: DataSpec = Field(description="The instruction sets.")
    benchmarks: BenchmarksSpec = Field(description="The benchmarks.")
    template: TemplateSpec = Field(
        default="paper",
        description="paper, chat, text or {jinja: TEXT}; renders examples and questions alike.",
    )
    engine: EngineSpec = Field(default=EngineSpec(), description="dtype of the engines.")
    likelihood: LikelihoodSpec = Field(
        default=LikelihoodSpec(), description="How perplexity and choices are measured."
    )
    sft: SFTSpec = Field(
        default=SFTSpec(batch_size=32, epochs=10, max_length=2048),
        description="Settings of fine-tuning; the defaults are the paper's (section 3.4).",
    )
    runs: tuple[RunsSpec, ...] = Field(min_length=1, description="Groups of runs.")
    measure: MeasureSpec = Field(default=MeasureSpec(), description="Further measurements.")
    about: AboutSpec | None = Field(
        default=None, description="Chance levels, languages and lengths that the report uses."
    )
    restore: LadderSpec | None = Field(
        default=None, description="Restoration of some of the tuned models; none if unset."
    )

    @field_validator("restore")
    @classmethod
    def _known_method(cls, restore: LadderSpec | None) -> LadderSpec | None:
        try:
            return None if restore is None else with_method(restore)
        except UserError as error:
            raise ValueError(str(error)) from error

    @model_validator(mode="after")
    def _names_are_known(self) -> SurveySpec:
        _check_pocket(self)
        for number, group in enumerate(self.runs):
            where = f"runs.{number}"
            _check_known(f"{where}.bases", group.bases or (), self.bases.names)
            if isinstance(group.data, tuple):
                _check_known(f"{where}.data", group.data, self.data.names)
            elif group.data == "leave-one-out" and len(self.data.names) < 2:
                raise ValueError(f"{where}.data: leave-one-out needs two or more sets")
            epochs = group.epochs or self.sft.epochs
            if epochs > MOST_EPOCHS:
                raise ValueError(f"{where}.epochs: {epochs:,} passes over a set; at most {MOST_EPOCHS:,}")
            if isinstance(group.keep_epochs, tuple) and any(not 1 <= n <= epochs for n in group.keep_epochs):
                raise ValueError(f"{where}.keep_epochs: {group.keep_epochs} are not all within 1 to {epochs}")
        if self.restore is not None:
            _check_known("restore.bases", self.restore.bases or (), self.bases.names)
        self._check_measure()
        self._check_about()
        for field, names in (
            ("bases", self.bases.names),
            ("data", self.data.names),
            ("benchmarks", (*self.benchmarks.names, *self.benchmarks.judged)),
        ):
            if not names:
                raise ValueError(f"{field}: none is given; name some under `pocket` or as files")
            if len(set(names)) < len(names):
                raise ValueError(f"{field}: one name is given twice, among {', '.join(names)}")
        return self

    def _check_measure(self) -> None:
        maps, geometry = self.measure.layer_maps, self.measure.geometry
        if maps is not None:
            _check_known("measure.layer_maps.data", maps.data, self.data.names)
            _check_known("measure.layer_maps.bases", maps.bases or (), self.bases.names)
        for name, measured in (("layer_maps", maps), ("geometry", geometry)):
            if measured is not None and measured.group >= len(self.runs):
                raise ValueError(
                    f"measure.{name}.group: {measured.group}; the survey has {len(self.runs)} groups of runs"
                )
        if geometry is not None:
            _check_known("measure.geometry.pictures", geometry.pictures or (), self.bases.names)
        if geometry is not None and self.runs[geometry.group].data in ("all", "leave-one-out"):
            raise ValueError(f"measure.geometry.group: {geometry.group} has no runs on single sets")

    def _check_about(self) -> None:
        if self.about is None:
            return
        asked = (*self.benchmarks.names, *self.benchmarks.judged)
        _check_known("about.data", tuple(self.about.data), self.data.names)
        _check_known("about.benchmarks", tuple(self.about.benchmarks), asked)
        for name, found in self.about.benchmarks.items():
            _check_known(f"about.benchmarks.{name}.mean_of", found.mean_of, asked)
            if found.chance is not None and not 0 <= found.chance <= 100:
                raise ValueError(
                    f"about.benchmarks.{name}.chance: {found.chance:g} is no percentage from 0 to 100"
                )


def rooted(survey: SurveySpec) -> SurveySpec:
    """The survey with the paths of its bases, data and benchmarks below its `root`; absolute paths stay."""
    if survey.root is None:
        return survey
    root = Path(survey.root)

    def moved(files: Mapping[str, Any], field: str) -> dict[str, Any]:
        return {
            name: file.model_copy(update={field: str(root / getattr(file, field))})
            for name, file in files.items()
        }

    bases, data, asked = survey.bases, survey.data, survey.benchmarks
    harness = asked.harness
    if harness is not None and harness.include is not None:
        harness = harness.model_copy(update={"include": str(root / harness.include)})
    benchmarks = {
        "files": moved(asked.files, "source"),
        "judged": moved(asked.judged, "source"),
        "harness": harness,
        "code": asked.code and asked.code.model_copy(update={"files": moved(asked.programs, "source")}),
    }
    return survey.model_copy(
        update={
            "bases": bases.model_copy(update={"folders": moved(bases.folders, "path")}),
            "data": data.model_copy(update={"files": moved(data.files, "source")}),
            "benchmarks": asked.model_copy(update=benchmarks),
        }
    )


def _check_pocket(survey: SurveySpec) -> None:
    _check_known("data.pocket", survey.data.pocket, tuple(SETS))
    _check_known("benchmarks.pocket", survey.benchmarks.pocket_names, tuple(SKILLS))
    seen: list[str] = []
    for name, base in survey.bases.pocket.items():
        if base.continues is not None and base.continues not in seen:
            raise ValueError(
                f"bases.pocket.{name}.continues: {base.continues!r} is no pocket base before it; "
                f"before it are {', '.join(seen) or 'none'}"
            )
        seen.append(name)


def _check_known(field: str, names: tuple[str, ...], known: tuple[str, ...]) -> None:
    for name in names:
        if name not in known:
            raise ValueError(f"{field}: unknown {name!r}; known are {', '.join(known)}")
