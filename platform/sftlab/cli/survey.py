"""The command for surveys: survey."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sftlab.cli.common import (
    JsonFlag,
    Overrides,
    Place,
    RuntimeFile,
    StoreFolder,
    interruptible,
    open_store,
    runtime_of,
    shown_progress,
)
from sftlab.errors import UserError
from sftlab.studies.survey.pipeline import STAGES

if TYPE_CHECKING:
    from sftlab.studies.survey.build import SurveyBuild

STAGE_NAMES = tuple(stage.name for stage in STAGES)
UNTIL = f"Last stage to build: {', '.join(STAGE_NAMES[:-1])} or {STAGE_NAMES[-1]}."


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


def print_plan(build: SurveyBuild, as_json: bool, every_step: bool, by_default: bool) -> None:
    """Print what the survey has, lacks and will cost; nothing is computed."""
    from sftlab.execution.preview import plan_json, preview, print_preview

    shown = preview(build.plan, build.store, build.runtime)
    if as_json:
        typer.echo(json.dumps(plan_json(shown), indent=1))
    else:
        print_preview(build.plan, shown, every_step, by_default=by_default)


def run_to_report(build: SurveyBuild, until: str) -> None:
    """Build the survey up to a stage; at the last one, print what was found and where the report is."""
    from sftlab.execution.run import finish_study, found_text, run_study

    build.progress.say(found_text(build, until))
    if until != STAGE_NAMES[-1]:
        run_study(build, until)
        build.progress.say(f"built up to {until} in {build.store}")
        return
    from sftlab.studies.survey.stages.report import report_file, summary

    text = finish_study(build, lambda: f"{summary(build)}\nreport: {report_file(build.plan, build.store)}")
    typer.echo(text)


def survey(
    file: Annotated[Path, typer.Argument(help="Survey file (YAML).", metavar="SURVEY.yaml")],
    runtime: RuntimeFile = None,
    store: StoreFolder = None,
    overrides: Overrides = None,
    until: Annotated[str, typer.Option(help=UNTIL)] = STAGE_NAMES[-1],
    plan: Annotated[bool, typer.Option("--plan", help="Show steps and cost; compute nothing.")] = False,
    every_step: Annotated[bool, typer.Option("--steps", help="With --plan: list each step.")] = False,
    as_json: JsonFlag = False,
) -> None:
    """Run a survey of bases, data sets, methods and sizes to its report.

    Run it again after a kill: it goes on where it stopped.
    """
    if until not in STAGE_NAMES:
        raise UserError(f"--until {until}: unknown stage; stages are {', '.join(STAGE_NAMES)}.")
    with interruptible():
        build = open_survey(file, runtime, store, overrides or [])
        if plan:
            print_plan(build, as_json, every_step, by_default=runtime is None)
        else:
            run_to_report(build, until)
