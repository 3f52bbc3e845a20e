"""Commands for studies: plan, run and status."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

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
    recommended_json,
    runtime_of,
    show,
    shown_progress,
    with_advice_to_log_later,
)
from sftlab.cli.survey import open_survey
from sftlab.studies.knowledge.pipeline import STAGES

if TYPE_CHECKING:
    from sftlab.execution.runtime import Runtime
    from sftlab.store.artifact import Store
    from sftlab.studies.knowledge.plan import Plan


def open_study(
    study: Path, runtime_file: Path | None, store: Place, overrides: Sequence[str], online: bool = False
) -> tuple[Plan, Runtime, Store]:
    """The plan of a study file, with its runtime and store. Raises UserError for whatever is wrong in them.

    online: fetches what the study names of a hub.
    """
    from sftlab.studies.knowledge.check import check
    from sftlab.studies.knowledge.plan import Plan
    from sftlab.studies.knowledge.sources import fetched, require_sizes, resolve
    from sftlab.studies.load import load_study

    runtime = runtime_of(runtime_file, store, overrides)
    spec = load_study(study, overrides)
    check(spec, runtime)
    with fetching() as report:
        spec = fetched(spec, online, report)
    opened = open_store(runtime)
    sources = resolve(spec, opened.root)
    require_sizes(spec.training_sets.sizes, sources, "training_sets.sizes")
    return Plan(spec, sources), runtime, opened


def study_plan(
    study: Path, runtime_file: Path | None, store: Place, overrides: Sequence[str], every_step: bool
) -> Shown:
    """What a study has, lacks and will cost; nothing is computed and nothing but remembered file hashes is written."""
    from sftlab.execution.progress import SilentProgress
    from sftlab.studies.knowledge.build import KnowledgeBuild
    from sftlab.studies.knowledge.estimate import totals, totals_json, totals_text
    from sftlab.studies.knowledge.stages.training_sets import check_training_sets, sizes_text

    plan, runtime, opened = open_study(study, runtime_file, store, overrides)
    build = KnowledgeBuild(plan, opened, runtime, SilentProgress())
    steps = previewed(build)
    missing = {planned.step.id for planned in steps if not planned.hit}
    found = totals(plan, runtime, lambda step: step.id in missing)
    shown = plan_shown("study", build, steps, every_step, by_default=runtime_file is None)
    refuse_early(build)
    check_training_sets(build)
    text = f"{totals_text(found, runtime.rates)}\n\n{shown.text}"
    sizes = sizes_text(build)
    data = {**shown.data, "totals": totals_json(found, runtime.rates)}
    return Shown(data, f"{text}\n\n{sizes}" if sizes else text)


def study_status(study: Path, runtime_file: Path | None, store: Place, overrides: Sequence[str]) -> Shown:
    """What of a study or survey is built, who builds in its store now, and what it still costs."""
    from sftlab.execution.status import status_json, status_of, status_text
    from sftlab.studies.load import is_survey

    page: Callable[[], Path]
    if is_survey(study):
        from sftlab.studies.survey.stages.report import report_file as survey_page

        build = open_survey(study, runtime_file, store, overrides)
        found = status_of(build.plan, build.store, build.runtime)
        page = partial(survey_page, build.plan, build.store)
    else:
        from sftlab.studies.knowledge.stages.report import report_file

        plan, runtime, opened = open_study(study, runtime_file, store, overrides)
        found = status_of(plan, opened, runtime)
        page = partial(report_file, plan, opened)
    data, text = status_json(found), status_text(found)
    if not found.to_build:
        data["report"] = str(page())
        text += f"\nreport: {data['report']}"
    return Shown(data, text)


def run_to_report(
    study: Path, runtime_file: Path | None, store: Place, overrides: Sequence[str], until: str
) -> Shown:
    """Build the study up to a stage, log it if it is whole, and say where the report is."""
    from sftlab.execution.run import finish_study
    from sftlab.studies.knowledge.build import KnowledgeBuild

    require_stage(until, STAGES)
    plan, runtime, opened = open_study(study, runtime_file, store, overrides, online=True)
    if until == LAST:
        probe_tracking(runtime)
    build = KnowledgeBuild(plan, opened, runtime, shown_progress())
    data = begun("study", build, until)
    if until != LAST:
        build_until(build, until)
        return Shown(data)
    from sftlab.studies.knowledge.stages.report import report_file
    from sftlab.studies.knowledge.stages.results import study_summary

    def read() -> tuple[str, dict[str, Any]]:
        report = str(report_file(plan, opened))
        return f"{study_summary(build)}\nreport: {report}", {
            "report": report,
            **recommended_json(build.read(plan.best)),
        }

    text, found = finish_study(build, read)
    print(text)
    data |= found
    if runtime.track:
        from sftlab.studies.knowledge.stages.track import track_results

        sys.stdout.flush()  # the recommendation comes before the failure
        with with_advice_to_log_later("study", study):
            data["mlflow"] = track_results(build)
        print(f"MLflow: {data['mlflow']}")
    return Shown(data)


Study = Annotated[Path, typer.Argument(help="Study file (YAML).", metavar="STUDY.yaml")]
LAST = STAGES[-1].name


def plan(
    study: Study,
    runtime: RuntimeFile = None,
    store: StoreFolder = None,
    overrides: Overrides = None,
    as_json: JsonFlag = False,
    every_step: Annotated[bool, typer.Option("--steps", help="List each step, also of large grids.")] = False,
) -> None:
    """Show what a study has, lacks and will cost.

    Every step with HIT or BUILD, the reason, and the cost. Computes nothing.
    """
    show(as_json, lambda: study_plan(study, runtime, store, overrides or [], every_step))


def status(
    study: Annotated[Path, typer.Argument(help="Study or survey file (YAML).", metavar="FILE.yaml")],
    runtime: RuntimeFile = None,
    store: StoreFolder = None,
    overrides: Overrides = None,
    as_json: JsonFlag = False,
) -> None:
    """Show what of a study or survey is built, runs and is left.

    By stage, with the process that builds in the store now, and the cost of the rest. Computes nothing.
    """
    show(as_json, lambda: study_status(study, runtime, store, overrides or []))


def run(
    study: Study,
    runtime: RuntimeFile = None,
    store: StoreFolder = None,
    overrides: Overrides = None,
    until: Annotated[str, typer.Option(help=until_help(STAGES))] = LAST,
    as_json: JsonFlag = False,
) -> None:
    """Build what a study lacks, to its report.

    Run it again after a kill: it goes on where it stopped.
    """
    show(as_json, lambda: run_to_report(study, runtime, store, overrides or [], until))
