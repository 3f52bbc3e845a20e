"""What a table of scores does not say itself: families, languages, lengths, chance levels, main benchmarks."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from importlib.resources import files
from pathlib import Path

from pydantic import Field, ValidationError

from sftlab.config.documents import load_yaml, nearest, parse_yaml
from sftlab.config.frozen import Frozen
from sftlab.config.messages import explained
from sftlab.errors import UserError, joined
from sftlab.studies.survey.score_table import BASE, ScoreTable

_SHOTS = re.compile(r"[-_ ](\d+)[-_ ]?shots?$", re.IGNORECASE)


class AboutModel(Frozen):
    """`family`: models that were trained from one another. `language`: of the pre-training, such as en."""

    family: str | None = None
    language: str | None = None


class AboutData(Frozen):
    """What is known about a training set."""

    length: float | None = Field(default=None, gt=0, description="Mean words or tokens of an example.")
    group: str | None = Field(default=None, description="A kind of sets, such as maths.")


class AboutBenchmark(Frozen):
    """What is known about a benchmark."""

    chance: float | None = Field(
        default=None, description="Score of guessing, in the unit of the scores (per cent in a survey)."
    )
    questions: int | None = Field(default=None, gt=0, description="Questions that were asked.")
    group: str | None = Field(default=None, description="A kind of benchmarks, such as maths.")
    main: bool = Field(
        default=False, description="Whether the main analysis uses it; if none is marked, it uses all."
    )
    transfer: str | None = Field(
        default=None,
        description="Of benchmarks with the same questions in several languages, the language, such as ja.",
    )
    mean_of: tuple[str, ...] = Field(
        default=(), description="The benchmarks whose mean this one is said to be."
    )


class About(Frozen):
    """Facts about the models, training sets and benchmarks of a table, by their names in it.

    `mixture` is the name of the set of all sets; `without` begins the name of the mixture of all sets but one.
    The order of the names is the order of the report.
    """

    models: dict[str, AboutModel] = Field(default_factory=dict)
    data: dict[str, AboutData] = Field(default_factory=dict)
    benchmarks: dict[str, AboutBenchmark] = Field(default_factory=dict)
    mixture: str = "all"
    without: str = "w/o-"

    def labels(self, models: Sequence[str], field: str) -> list[str]:
        """The family or language of each model; a model of which it is unknown has its name."""
        known = [getattr(self.models.get(model, AboutModel()), field) for model in models]
        return [label or model for label, model in zip(known, models, strict=True)]

    def single_sets(self, table: ScoreTable) -> list[str]:
        """The training sets that are no mixtures, in the order of the report."""
        found = dict.fromkeys(run.data for run in table.runs if run.data != BASE)
        return ordered(
            (name for name in found if name != self.mixture and not name.startswith(self.without)), self.data
        )

    def main_benchmarks(self, table: ScoreTable) -> list[str]:
        """Those marked `main`; where none is marked, all but few-shot forms and parts of another one."""
        marked = [name for name, about in self.benchmarks.items() if about.main and name in table.benchmarks]
        if marked:
            return marked
        parts = {part for about in self.benchmarks.values() for part in about.mean_of}
        return ordered((b for b in table.benchmarks if not shots(b)[1] and b not in parts), self.benchmarks)


def shots(benchmark: str) -> tuple[str, int]:
    """The benchmark without its number of examples, and that number: ('gsm8k', 4) of 'gsm8k-4shot'."""
    found = _SHOTS.search(benchmark)
    return (benchmark[: found.start()], int(found[1])) if found else (benchmark, 0)


def ordered(names: Iterable[str], first: Iterable[str]) -> list[str]:
    """The names, those of `first` before the others and in its order."""
    present = list(names)
    known = [name for name in first if name in set(present)]
    return known + [name for name in present if name not in set(known)]


def read_about(path: Path, table: ScoreTable) -> About:
    """Read facts about a table from YAML.

    Raises UserError for a wrong field, and for a name that is nearly, but not quite, one of the table's.
    """
    about = parse_about(load_yaml(path, "give a YAML file with models, data and benchmarks."), str(path))
    present: Mapping[str, Sequence[str]] = {
        "models": table.models,
        "data": list(dict.fromkeys(run.data for run in table.runs)),
        "benchmarks": table.benchmarks,
    }
    for field, names in present.items():
        given = getattr(about, field)
        for name in given:
            near = None if name in names else nearest(name, [other for other in names if other not in given])
            if near:
                raise UserError(
                    f"{field}.{name}: {table.source} has no such name",
                    place=path,
                    advice=f"did you mean {near!r}?",
                )
    return about


def parse_about(document: object, where: str) -> About:
    """A document as `About`; UserError with all that is wrong, by field."""
    if not isinstance(document, Mapping):
        raise UserError(place=where, value=document, expected="the keys models, data and benchmarks")
    try:
        return About.model_validate(document)
    except ValidationError as error:
        raise joined([found.error(where) for found in explained(About, document, error)]) from error


def about_massive_sft() -> About:
    """What the paper says about its models, sets and benchmarks, by the names of its CSV."""
    text = files("sftlab.studies.survey").joinpath("data/massive_sft_about.yaml").read_text(encoding="utf-8")
    return parse_about(parse_yaml(text, "massive_sft_about.yaml"), "massive_sft_about.yaml")
