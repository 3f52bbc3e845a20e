"""The command for surveys: survey."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sftlab.cli.building import (
    begun,
    build_until,
    plan_shown,
    previewed,
    refuse_early,
    require_stage,
    until_help,
)
from sftlab.cli.common import (
    JsonFlag,
    Overrides,
    Place,
    RuntimeFile,
    Shown,
    StoreFolder,
    fetching,
    open_store,
    probe_tracking,
    runtime_of,
    show,
    shown_progress,
    with_advice_to_log_later,
)
from sftlab.cli.options import expanded
from sftlab.studies.survey.pipeline import STAGES

if TYPE_CHECKING:
    from sftlab.studies.survey.build import SurveyBuild

LAST = STAGES[-1].name


def open_survey(
    file: Path, runtime_file: Path | None, store: Place, overrides: Sequence[str], online: bool = False
) -> SurveyBuild:
    """A survey file, ready to be built. Raises UserError for whatever is wrong in it, its runtime and its store.

    online: fetches what the survey names of a hub.
    """
    from sftlab.studies.load import load_survey
    from sftlab.studies.survey.build import SurveyBuild
    from sftlab.studies.survey.check import check
    from sftlab.studies.survey.plan import SurveyPlan
    from sftlab.studies.survey.sources import fetched, resolve

    runtime = runtime_of(runtime_file, store, overrides)
    spec = load_survey(file, overrides)
    check(spec, runtime)
    with fetching() as report:
        spec = fetched(spec, online, report)
    opened = open_store(runtime)
    return SurveyBuild(SurveyPlan(spec, resolve(spec, opened.root)), opened, runtime, shown_progress())


def survey_plan(build: SurveyBuild, extent: Extent, by_default: bool) -> Shown:
    """What the survey has, lacks and will cost; nothing is computed. Raises UserError for what a run refuses."""
    from sftlab.studies.survey.check import require_report
    from sftlab.studies.survey.estimate import totals, totals_json, totals_text

    if extent.until == LAST:
        require_report(build.plan.spec)
    steps = previewed(build)
    missing = {planned.step.id for planned in steps if not planned.hit}
    rates = build.runtime.rates
    found = totals(build.plan, rates, lambda step: step.id in missing)
    shown = plan_shown("survey", build, steps, extent.every_step, by_default)
    refuse_early(build)
    text = f"survey {build.plan.name}\n{totals_text(found, rates)}\n\n{shown.text}"
    return Shown({**shown.data, "totals": totals_json(found, rates)}, text)


def survey_to_report(build: SurveyBuild, file: Path, until: str) -> Shown:
    """Build the survey up to a stage; at the last one, say what was found and where the report is, and log it."""
    if until == LAST:
        from sftlab.studies.survey.check import require_report

        require_report(build.plan.spec)
        probe_tracking(build.runtime)
    data = begun("survey", build, until)
    if until != LAST:
        build_until(build, until)
        return Shown(data)
    from sftlab.execution.run import finish_study
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
        build = open_survey(file, runtime, store, overrides or [], online=not extent.plan)
        if extent.plan:
            return survey_plan(build, extent, by_default=runtime is None)
        return survey_to_report(build, file, extent.until)

    show(as_json, work)
