"""The command for finished results: report."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sftlab.cli.common import (
    JsonFlag,
    Overrides,
    Place,
    RuntimeFile,
    Shown,
    StoreFolder,
    open_store,
    recommended_json,
    runtime_of,
    show,
    shown_progress,
)
from sftlab.cli.options import expanded
from sftlab.cli.study import open_study
from sftlab.cli.survey import open_survey
from sftlab.cli.sweep import conclude, open_sweep
from sftlab.errors import UserError
from sftlab.shell import command

if TYPE_CHECKING:
    from sftlab.store.record import Step
    from sftlab.studies.knowledge.build import KnowledgeBuild
    from sftlab.studies.knowledge.models import OfModel

PAGES = "comparisons"  # folder below the store for pages of several base models


@dataclass(frozen=True)
class Wanted:
    """What is reported."""

    time: Annotated[bool, typer.Option("--time", help="Print where the time of a sweep's trials went.")] = (
        False
    )
    output: Annotated[
        Path | None,
        typer.Option(help="Page of several base models; below the store if unset.", metavar="FILE.html"),
    ] = None


@expanded
def report(
    files: Annotated[
        list[Path], typer.Argument(help="Study, sweep or survey files (YAML).", metavar="FILE.yaml...")
    ],
    wanted: Wanted,
    runtime: RuntimeFile = None,
    store: StoreFolder = None,
    overrides: Overrides = None,
    as_json: JsonFlag = False,
) -> None:
    """Say what a finished study, sweep or survey found.

    And where its report is, or (--time) where its time went. Give several files, one for each base model, to compare
    them on one page; they must ask the same questions.
    """
    show(as_json, lambda: reported(files, wanted, runtime, store, overrides or []))


def reported(
    files: Sequence[Path], wanted: Wanted, runtime_file: Path | None, store: Place, overrides: Sequence[str]
) -> Shown:
    """What `sftlab report` says. Raises UserError for results that are not there."""
    from sftlab.studies.load import is_survey, is_sweep

    if len(files) > 1:
        if wanted.time:
            raise UserError("--time is of one sweep", advice="give one file.")
        return models_report(files, wanted.output, runtime_file, store, overrides)
    if wanted.output is not None:
        raise UserError("--output is the page of several base models", advice="give two files or more.")
    (file,) = files
    if is_sweep(file):
        return sweep_report(file, runtime_file, store, overrides, wanted.time)
    if is_survey(file) and not wanted.time:
        return survey_report(file, runtime_file, store, overrides)
    if wanted.time:
        raise UserError("--time is of sweeps", place=file, advice="leave it out.")
    return study_report(file, runtime_file, store, overrides)


def sweep_report(
    path: Path, runtime_file: Path | None, store: Place, overrides: Sequence[str], time: bool
) -> Shown:
    """Say where a finished sweep's report is, made again if it is missing, or where its time went."""
    from sftlab.studies.knowledge.sweep.sweep import finished_sweep
    from sftlab.sweeps.times import time_rows, time_table

    sweep = open_sweep(path, runtime_file, store, overrides)
    if not time:
        return conclude(sweep, finished_sweep(sweep), None)
    text = time_table(sweep.spec.name, sweep.records, sweep.store)
    rows = [asdict(row) for row in time_rows(sweep.records)]
    return Shown({"sweep": sweep.spec.name, "store": str(sweep.store), "times": rows}, text)


def study_report(path: Path, runtime_file: Path | None, store: Place, overrides: Sequence[str]) -> Shown:
    """Say what a finished study recommends, and where its report is."""
    from sftlab.studies.knowledge.stages.report import report_file
    from sftlab.studies.knowledge.stages.results import study_summary

    build = _study_build(path, runtime_file, store, overrides)
    plan = build.plan
    _require_finished(build, path, plan.results, plan.best, plan.report)
    page = report_file(plan, build.store)
    data = {"study": plan.name, "store": str(build.store), "report": str(page)}
    text = f"{study_summary(build)}\nreport: {page}"
    return Shown(data | recommended_json(build.read(plan.best)), text)


def survey_report(path: Path, runtime_file: Path | None, store: Place, overrides: Sequence[str]) -> Shown:
    """Say what a finished survey found, and where its report is."""
    from sftlab.studies.survey.stages.report import read_summary, report_file

    build = open_survey(path, runtime_file, store, overrides)
    if build.missing(build.plan.report):
        raise _unfinished(path, "survey")
    found, page = read_summary(build), report_file(build.plan, build.store)
    data = {"survey": build.plan.name, "store": str(build.store), "report": str(page), **found}
    return Shown(data, f"{found['finding']}\nreport: {page}")


def models_report(
    files: Sequence[Path],
    output: Path | None,
    runtime_file: Path | None,
    store: Place,
    overrides: Sequence[str],
) -> Shown:
    """Write the page of several base models."""
    from sftlab.studies.knowledge.models import write_models_page

    found = [_of_model(file, runtime_file, store, overrides) for file in files]
    root = open_store(runtime_of(runtime_file, store, overrides)).root
    page = output or root / PAGES / f"{'-'.join(one.results.name for one in found)[:100]}.html"
    write_models_page(found, page)
    models = [one.results.model for one in found]
    return Shown({"models": models, "report": str(page)}, f"{', '.join(models)}\nreport: {page}")


def _of_model(file: Path, runtime_file: Path | None, store: Place, overrides: Sequence[str]) -> OfModel:
    """The finished results of a file. Raises UserError where they are not there."""
    from sftlab.studies.knowledge.models import OfModel
    from sftlab.studies.knowledge.stages.results import read_results
    from sftlab.studies.load import is_sweep

    if is_sweep(file):
        from sftlab.studies.knowledge.sweep.results import build_sweep_results
        from sftlab.studies.knowledge.sweep.steps import finish
        from sftlab.studies.knowledge.sweep.sweep import finished_sweep

        sweep = open_sweep(file, runtime_file, store, overrides)
        finished = finish(sweep, finished_sweep(sweep))
        return OfModel(file, sweep.base.plan.facts, build_sweep_results(sweep, finished))
    build = _study_build(file, runtime_file, store, overrides)
    _require_finished(build, file, build.plan.results)
    return OfModel(file, build.plan.facts, read_results(build))


def _study_build(
    file: Path, runtime_file: Path | None, store: Place, overrides: Sequence[str]
) -> KnowledgeBuild:
    from sftlab.studies.knowledge.build import KnowledgeBuild

    plan, runtime, opened = open_study(file, runtime_file, store, overrides)
    return KnowledgeBuild(plan, opened, runtime, shown_progress())


def _require_finished(build: KnowledgeBuild, file: Path, *steps: Step) -> None:
    if build.missing(*steps):
        raise _unfinished(file, "run")


def _unfinished(file: Path, builder: str) -> UserError:
    return UserError(
        "is not finished in this store", place=file, advice=f"run `{command('sftlab', builder, file)}` first."
    )
