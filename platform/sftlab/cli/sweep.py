"""Commands for sweeps: sweep and report."""

from __future__ import annotations

from collections.abc import Sequence
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
    fetching,
    open_store,
    recommended_json,
    runtime_of,
    show,
    shown_progress,
    with_advice_to_log_later,
)

if TYPE_CHECKING:
    from sftlab.studies.knowledge.sweep.sweep import Sweep
    from sftlab.studies.knowledge.sweep.trials import Trial


def sweep(
    file: Annotated[Path, typer.Argument(help="Sweep file (YAML).", metavar="SWEEP.yaml")],
    runtime: RuntimeFile = None,
    store: StoreFolder = None,
    overrides: Overrides = None,
    plan: Annotated[
        bool, typer.Option("--plan", help="Only show what there is and what it will cost.")
    ] = False,
    as_json: JsonFlag = False,
) -> None:
    """Run a study over data, sizes and strategies.

    Finished trials are used again: run it again after a kill, or with a longer axis.
    """
    show(as_json, lambda: (sweep_plan if plan else sweep_to_report)(file, runtime, store, overrides or []))


def open_sweep(
    path: Path, runtime_file: Path | None, store: Place, overrides: Sequence[str], online: bool = False
) -> Sweep:
    """A sweep file with its study, runtime and store. Raises UserError for whatever is wrong in them.

    online: fetches what the study names of a hub.
    """
    from sftlab.studies.knowledge.sources import fetched, require_sizes, resolve
    from sftlab.studies.knowledge.sweep.sweep import Sweep
    from sftlab.studies.knowledge.sweep.trials import check_sweep
    from sftlab.studies.load import load_sweep

    runtime = runtime_of(runtime_file, store, overrides)
    spec, study = load_sweep(path, overrides)
    check_sweep(spec, study, runtime)
    with fetching() as report:
        study = fetched(study, online, report)
    opened = open_store(runtime)
    sources = resolve(study, opened.root)
    require_sizes(spec.axes.size, sources, "axes.size")
    return Sweep(spec, study, sources, opened, runtime, shown_progress())


def sweep_plan(path: Path, runtime_file: Path | None, store: Place, overrides: Sequence[str]) -> Shown:
    """Print how many trials are there and what the others will cost; nothing is computed."""
    from sftlab.studies.knowledge.sweep.cost import check_limits, plan_sweep
    from sftlab.studies.knowledge.sweep.trials import check_sweep_model

    sweep = open_sweep(path, runtime_file, store, overrides)
    if not sweep.sources.outside.missing():
        check_sweep_model(sweep.spec, sweep.study, sweep.runtime)
    planned = plan_sweep(sweep)
    print(planned, flush=True)
    check_limits(sweep)
    return Shown({"sweep": sweep.spec.name, "store": str(sweep.store), "plan": planned.splitlines()})


def sweep_to_report(path: Path, runtime_file: Path | None, store: Place, overrides: Sequence[str]) -> Shown:
    """Run what a sweep lacks, log it, and say what it recommends and where the report is."""
    from sftlab.execution.repair import repairing
    from sftlab.studies.knowledge.sweep.run import run_sweep
    from sftlab.studies.knowledge.sweep.steps import steps_of_sweep
    from sftlab.studies.knowledge.sweep.track import live_tracking

    sweep = open_sweep(path, runtime_file, store, overrides, online=True)

    def finish() -> Shown:
        with live_tracking(sweep) as live:
            trials = run_sweep(sweep, live)
        return conclude(sweep, trials, path if sweep.runtime.track else None)

    return repairing(
        finish,
        sweep.store,
        sweep.progress,
        lambda: steps_of_sweep(sweep),
        lambda step: sweep.store.lock(step.lock),
    )


def conclude(sweep: Sweep, trials: Sequence[Trial], track: Path | None) -> Shown:
    """Tables, report and best model of the finished trials; logged last, so that a server's absence costs nothing.

    track: the sweep's file, where it is to be logged.
    """
    from sftlab.studies.knowledge.stages.results import summary
    from sftlab.studies.knowledge.sweep.results import (
        build_sweep_best,
        build_sweep_report,
        build_sweep_results,
    )
    from sftlab.studies.knowledge.sweep.steps import finish, release_models

    finished = finish(sweep, trials)
    results = build_sweep_results(sweep, finished)
    report = build_sweep_report(sweep, finished, results)
    best = build_sweep_best(sweep, finished, results)
    print(f"{summary(finished, results)}\nreport: {report}\nmodel: {best}", flush=True)
    data = {"sweep": sweep.spec.name, "store": str(sweep.store), "report": str(report)}
    release_models(sweep, trials)
    data |= recommended_json(best.parent)
    if track is not None:
        from sftlab.studies.knowledge.stages import track as tracking
        from sftlab.sweeps.times import LOGGING, keeping

        # Two that log at the same moment would log a trial twice.
        with with_advice_to_log_later("sweep", track), sweep.store.lock("tracking"):
            with keeping(sweep.folder, LOGGING):
                data["mlflow"] = tracking.track(finished, results, report, best).how_to_look
        print(f"MLflow: {data['mlflow']}")
    return Shown(data)
