"""`sftlab list`: what can be named in a study, a sweep or a data set, with a line of explanation each."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from enum import StrEnum
from importlib import import_module
from pathlib import Path
from typing import Annotated

import typer

from sftlab.cli.common import JsonFlag


class Kind(StrEnum):
    """What `sftlab list` lists."""

    STRATEGIES = "strategies"
    METRICS = "metrics"
    STAGES = "stages"
    FORMATS = "formats"
    STUDIES = "studies"


def list_names(
    kind: Annotated[Kind, typer.Argument(help="What to list.", metavar="|".join(Kind))],
    plugins: Annotated[
        list[str] | None, typer.Option("--plugin", help="Module with custom strategies; may be repeated.")
    ] = None,
    as_json: JsonFlag = False,
) -> None:
    """List strategies, metrics, stages, formats or studies."""
    if plugins:
        from sftlab.strategies import load_plugins

        load_plugins(plugins, Path.cwd())
    found = LISTED[kind]()
    if as_json:
        typer.echo(json.dumps(found, indent=2, ensure_ascii=False))
        return
    width = max(map(len, found))
    for name, text in found.items():
        typer.echo(f"{name:<{width}}  {text}")


def strategies() -> dict[str, str]:
    from sftlab.strategies import known_strategies

    return {name: f"{kind.title} ({kind.source})" for name, kind in known_strategies().items()}


def metrics() -> dict[str, str]:
    from sftlab.studies.knowledge.results.choice import METRICS

    return {name: metric.words for name, metric in METRICS.items()}


def stages() -> dict[str, str]:
    """The stages of the knowledge study in the order in which they are built, by the first line of their builders."""
    from sftlab.studies.knowledge.pipeline import STAGES

    return {stage.name: first_paragraph(stage.builder()) for stage in STAGES}


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
    Kind.FORMATS: formats,
    Kind.STUDIES: studies,
}
