"""The command for surveys: survey."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sftlab.cli.common import (
    JsonFlag,
    Overrides,
    Place,
    RuntimeFile,
    Shown,
    StoreFolder,
    open_store,
    probe_tracking,
    runtime_of,
    show,
    shown_progress,
    with_advice_to_log_later,
)
from sftlab.cli.options import expanded
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


def survey_plan(build: SurveyBuild, every_step: bool, by_default: bool) -> Shown:
    """What the survey has, lacks and will cost; nothing is computed."""
    from sftlab.execution.preview import plan_json, preview, preview_text
    from sftlab.studies.survey.estimate import totals, totals_json, totals_text

    shown = preview(build.plan, build.store, build.runtime)
    missing = {planned.step.id for planned in shown if not planned.hit}
    rates = build.runtime.rates
    found = totals(build.plan, rates, lambda step: step.id in missing)
    table = preview_text(build.plan, shown, every_step, by_default=by_default)
    text = f"survey {build.plan.name}\n{totals_text(found, rates)}\n\n{table}"
    data = {"survey": build.plan.name, "store": str(build.store), "totals": totals_json(found, rates)}
    return Shown({**data, **plan_json(shown)}, text)


def survey_to_report(build: SurveyBuild, file: Path, until: str) -> Shown:
    """Build the survey up to a stage; at the last one, say what was found and where the report is, and log it."""
    from sftlab.execution.run import finish_study, found_text, run_study

    if until == STAGE_NAMES[-1]:
        probe_tracking(build.runtime)
    build.progress.say(found_text(build, until))
    data: dict[str, Any] = {"survey": build.plan.name, "store": str(build.store), "until": until}
    if until != STAGE_NAMES[-1]:
        run_study(build, until)
        build.progress.say(f"built up to {until} in {build.store}")
        return Shown(data)
    from sftlab.studies.survey.stages.report import read_summary, report_file

    found, page = finish_study(build, lambda: (read_summary(build), report_file(build.plan, build.store)))
    data |= {"report": str(page), **found}
    print(f"{found['finding']}\nreport: {page}", flush=True)  # the finding comes before a failure to log
    if build.runtime.track:
        data["mlflow"] = track_survey_of(build, file)
    return Shown(data)


def track_survey_of(build: SurveyBuild, file: Path) -> str:
    """Log a finished survey, print where to look at it and return that."""
    from sftlab.studies.survey.stages.track import track_survey

    with with_advice_to_log_later("survey", file):
        where = track_survey(build)
    print(f"MLflow: {where}", flush=True)
    return where


@dataclass(frozen=True)
class Extent:
    """How far a survey goes: to a stage, or only to its plan."""

    until: Annotated[str, typer.Option(help=UNTIL)] = STAGE_NAMES[-1]
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
    if extent.until not in STAGE_NAMES:
        raise UserError(
            "unknown stage", place=f"--until {extent.until}", advice=f"stages are {', '.join(STAGE_NAMES)}."
        )

    def work() -> Shown:
        build = open_survey(file, runtime, store, overrides or [])
        if extent.plan:
            return survey_plan(build, extent.every_step, by_default=runtime is None)
        return survey_to_report(build, file, extent.until)

    show(as_json, work)
