"""The command for surveys: survey."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sftlab.cli.building import begun, build_until, plan_shown, refuse_early, require_stage, until_help
from sftlab.cli.common import (
    JsonFlag,
    Overrides,
    Place,
    RuntimeFile,
    Shown,
    StoreFolder,
    open_store,
    runtime_of,
    show,
    shown_progress,
)
from sftlab.cli.options import expanded
from sftlab.studies.survey.pipeline import STAGES

if TYPE_CHECKING:
    from sftlab.studies.survey.build import SurveyBuild

LAST = STAGES[-1].name


def open_survey(file: Path, runtime_file: Path | None, store: Place, overrides: Sequence[str]) -> SurveyBuild:
    """A survey file, ready to be built. Raises UserError for whatever is wrong in it, its runtime and its store."""
    from sftlab.studies.load import load_survey
    from sftlab.studies.survey.build import SurveyBuild
    from sftlab.studies.survey.check import check
    from sftlab.studies.survey.plan import SurveyPlan
    from sftlab.studies.survey.sources import resolve

    runtime = runtime_of(runtime_file, store, overrides)
    spec = load_survey(file, overrides)
    check(spec, runtime)
    opened = open_store(runtime)
    return SurveyBuild(SurveyPlan(spec, resolve(spec, opened.root)), opened, runtime, shown_progress())


def survey_plan(build: SurveyBuild, every_step: bool, by_default: bool) -> Shown:
    """What the survey has, lacks and will cost; nothing is computed."""
    shown = plan_shown("survey", build, every_step, by_default)
    refuse_early(build)
    return shown


def survey_to_report(build: SurveyBuild, until: str) -> Shown:
    """Build the survey up to a stage; at the last one, say what was found and where the report is."""
    data = begun("survey", build, until)
    if until != LAST:
        build_until(build, until)
        return Shown(data)
    from sftlab.execution.run import finish_study
    from sftlab.studies.survey.compare import summary
    from sftlab.studies.survey.report.page import finding
    from sftlab.studies.survey.stages.report import compared, report_file

    found, page = finish_study(build, lambda: (compared(build), report_file(build.plan, build.store)))
    data |= {"report": str(page), **summary(found)}
    return Shown(data, f"{finding(found)}\nreport: {page}")


@dataclass(frozen=True)
class Extent:
    """How far a survey goes: to a stage, or only to its plan."""

    until: Annotated[str, typer.Option(help=until_help(STAGES))] = LAST
    plan: Annotated[bool, typer.Option("--plan", help="Show steps and cost; compute nothing.")] = False
    every_step: Annotated[bool, typer.Option("--steps", help="With --plan: list each step.")] = False


@expanded
def survey(
    file: Annotated[Path, typer.Argument(help="Survey file (YAML).", metavar="SURVEY.yaml")],
    extent: Extent,
    runtime: RuntimeFile = None,
    store: StoreFolder = None,
    overrides: Overrides = None,
    as_json: JsonFlag = False,
) -> None:
    """Build what a survey lacks, to its report.

    Bases x data sets x methods x sizes, scored on benchmarks. Run it again after a kill: it goes on where it stopped.
    """
    require_stage(extent.until, STAGES)

    def work() -> Shown:
        build = open_survey(file, runtime, store, overrides or [])
        if extent.plan:
            return survey_plan(build, extent.every_step, by_default=runtime is None)
        return survey_to_report(build, extent.until)

    show(as_json, work)
