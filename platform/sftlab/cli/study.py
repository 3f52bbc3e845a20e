"""What the commands of the command line do, as functions that return or print what a person reads."""

from __future__ import annotations

import json
import sys
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
    _open,
    _progress,
    _runtime,
    interruptible,
)
from sftlab.errors import UserError

if TYPE_CHECKING:
    from sftlab.execution.runtime import Runtime
    from sftlab.store.artifact import Store
    from sftlab.studies.knowledge.plan import Plan


def open_study(
    study: Path, runtime_file: Path | None, store: Place, overrides: Sequence[str]
) -> tuple[Plan, Runtime, Store]:
    """The plan of a study file, with its runtime and store. Raises UserError for whatever is wrong in them."""
    from sftlab.studies.knowledge.check import check
    from sftlab.studies.knowledge.plan import Plan
    from sftlab.studies.knowledge.sources import require_sizes, resolve
    from sftlab.studies.load import load_study

    runtime = _runtime(runtime_file, store, overrides)
    spec = load_study(study, overrides)
    check(spec, runtime)
    opened = _open(runtime)
    sources = resolve(spec, opened.root)
    require_sizes(spec.training_sets.sizes, sources, "training_sets.sizes")
    return Plan(spec, sources), runtime, opened


def print_plan(
    study: Path,
    runtime_file: Path | None,
    store: Place,
    overrides: Sequence[str],
    as_json: bool,
    every_step: bool,
) -> None:
    """Print the plan; nothing is computed and nothing but remembered file hashes is written."""
    from sftlab.execution.preview import plan_json, preview, print_preview

    plan, runtime, opened = open_study(study, runtime_file, store, overrides)
    shown = preview(plan, opened, runtime)
    if as_json:
        print(json.dumps(plan_json(shown), indent=1))
    else:
        print_preview(plan, shown, every_step, by_default=runtime_file is None)


def run_to_report(
    study: Path, runtime_file: Path | None, store: Place, overrides: Sequence[str], until: str
) -> None:
    """Build the study up to a stage, log it if it is whole, and say where the report lies."""
    from sftlab.execution.build import Build
    from sftlab.execution.repair import mending
    from sftlab.execution.run import found_text, run_study
    from sftlab.studies.knowledge.plan import STAGES

    if until not in STAGES:
        raise UserError(f"--until {until}: is no stage; stages are {', '.join(STAGES)}.")
    plan, runtime, opened = open_study(study, runtime_file, store, overrides)
    progress = _progress()
    if until == STAGES[-1] and runtime.track:
        from sftlab.tracking.settings import probe

        if runtime.tracking.is_server and runtime.tracking.address:
            probe(runtime.tracking.address)
    build = Build(plan, opened, runtime, progress)
    progress.say(found_text(build, until))
    if until != STAGES[-1]:
        run_study(build, until)
        progress.say(f"built up to {until} in {opened}")
        return
    from sftlab.studies.knowledge.stages.report import report_file
    from sftlab.studies.knowledge.stages.results import summary

    def finish() -> str:
        run_study(build, until)
        return f"{summary(build)}\nreport: {report_file(plan, opened)}"

    steps = [step for step, _ in plan.steps()]
    print(mending(finish, opened, progress, lambda: steps, lambda _: opened.exclusive(lambda: None)))
    if runtime.track:
        from sftlab.studies.knowledge.stages.track import told_how_to_log_later, track_results

        sys.stdout.flush()  # what is recommended stands before what failed
        with told_how_to_log_later("study", study):
            print(f"MLflow: {track_results(build)}")


Study = Annotated[Path, typer.Argument(help="Study file (YAML).", metavar="STUDY.yaml")]
# The stages of studies/knowledge/plan.py, which is heavy to import; a test compares them.
UNTIL = "Last stage to build: facts, model, mastery, training-set, tuned, change, evaluation, results, best or report."


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
    with interruptible():
        print_plan(study, runtime, store, overrides or [], as_json, every_step)


def run(
    study: Study,
    runtime: RuntimeFile = None,
    store: StoreFolder = None,
    overrides: Overrides = None,
    until: Annotated[str, typer.Option(help=UNTIL)] = "report",
) -> None:
    """Build what a study lacks, to its report.

    Run it again after a kill: it goes on where it stopped.
    """
    with interruptible():
        run_to_report(study, runtime, store, overrides or [], until)
