"""`sftlab list`: what can be named in a study, a sweep or a data set, with a line of explanation each."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from enum import StrEnum
from importlib import import_module
from pathlib import Path
from typing import Annotated

import typer

from sftlab.cli.common import JsonFlag, Shown, show


class Kind(StrEnum):
    """What `sftlab list` lists."""

    STRATEGIES = "strategies"
    METRICS = "metrics"
    STAGES = "stages"
    MODELS = "models"
    DATA = "data"
    FORMATS = "formats"
    STUDIES = "studies"


def list_names(
    kind: Annotated[Kind, typer.Argument(help="What to list.", metavar="|".join(Kind))],
    plugins: Annotated[
        list[str] | None, typer.Option("--plugin", help="Module with custom strategies; may be repeated.")
    ] = None,
    models: Annotated[Path, typer.Option(help="Folder of the catalogue of models.")] = Path(
        "jobs/configs/models"
    ),
    as_json: JsonFlag = False,
) -> None:
    """List what there is, with a line of explanation.

    Of strategies, metrics, stages, models, data, formats or studies.
    """
    show(as_json, lambda: listed(kind, plugins or [], models))


def listed(kind: Kind, plugins: Sequence[str], models: Path) -> Shown:
    """Names with a line of explanation each; plugins may be in the working folder."""
    if plugins:
        from sftlab.strategies import load_plugins

        load_plugins(plugins, Path.cwd())
    found = catalogue(models) if kind is Kind.MODELS else LISTED[kind]()
    width = max(map(len, found))
    return Shown(found, "\n".join(f"{name:<{width}}  {text}" for name, text in found.items()))


def catalogue(folder: Path) -> dict[str, str]:
    """The models of a catalogue, by the names of their files."""
    from sftlab.inference.catalogue import described, read_catalogue

    return {name: described(entry) for name, entry in read_catalogue(folder).items()}


def strategies() -> dict[str, str]:
    from sftlab.strategies import known_strategies

    return {name: f"{kind.title} ({kind.source})" for name, kind in known_strategies().items()}


def metrics() -> dict[str, str]:
    from sftlab.studies.knowledge.results.choice import METRICS

    return {name: metric.words for name, metric in METRICS.items()}


def stages() -> dict[str, str]:
    """The stages of each study in the order in which they are built, by the first line of their builders."""
    from sftlab.studies.knowledge.pipeline import STAGES as KNOWLEDGE
    from sftlab.studies.survey.pipeline import STAGES as SURVEY

    return {
        f"{study}: {stage.name}": first_paragraph(stage.builder())
        for study, declared in (("knowledge", KNOWLEDGE), ("survey", SURVEY))
        for stage in declared
    }


def data() -> dict[str, str]:
    """Where the facts and examples of a study come from."""
    from sftlab.facts.prepare import SOURCES

    return dict(SOURCES)


def formats() -> dict[str, str]:
    from sftlab.datasets.formats import described

    return described()


def studies() -> dict[str, str]:
    from pkgutil import iter_modules

    from sftlab import studies as package

    folders = [module.name for module in iter_modules(package.__path__) if module.ispkg]
    return {name: first_paragraph(import_module(f"{package.__name__}.{name}")) for name in folders}


def first_paragraph(documented: object) -> str:
    """The first paragraph of a docstring, on one line."""
    return " ".join((documented.__doc__ or "").split("\n\n")[0].split())


LISTED: Mapping[Kind, Callable[[], dict[str, str]]] = {
    Kind.STRATEGIES: strategies,
    Kind.METRICS: metrics,
    Kind.STAGES: stages,
    Kind.DATA: data,
    Kind.FORMATS: formats,
    Kind.STUDIES: studies,
}
