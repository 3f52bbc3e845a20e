"""What the commands of the command line do, as functions that return or print what a person reads."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, get_args

from sftlab.errors import UserError

if TYPE_CHECKING:
    from sftlab.store.artifact import Store
    from sftlab.study.plan import Plan
    from sftlab.study.progress import Bar, Progress
    from sftlab.study.runtime import Runtime
    from sftlab.study.sweep import Sweep
    from sftlab.study.trials import Trial
    from sftlab.weights.cut import Measure, Order, Region

Place = Path | str | None  # of a store: a folder, an address, or what the runtime file says


def _progress() -> Progress:
    from sftlab.study.progress import choose_progress

    return choose_progress(sys.stderr.isatty())


@contextmanager
def _bar_once_begun(title: str) -> Iterator[Callable[..., None]]:
    """A bar that is shown from its first update on: what is wrong in the arguments is told before anything begins."""
    with ExitStack() as shown:
        bars: list[Bar] = []

        def update(done: int, total: int, note: str = "") -> None:
            if not bars:
                bars.append(shown.enter_context(_progress().bar(title)))
            bars[0].update(done, total, note)

        yield update


def prepare_facts(source: Path, output: Path, templates: Path | None, as_json: bool) -> str:
    """Read and write facts; returns the counts by split and topic as text or JSON."""
    from sftlab.facts.prepare import left_out, read_source, write_facts

    tables, topics = read_source(source, templates)
    counts = write_facts(tables, topics, output)
    if told := left_out(source, topics):
        print(told, file=sys.stderr)  # not into the JSON
    totals = {split: sum(topics.values()) for split, topics in counts.items()}
    if as_json:
        return json.dumps({"facts": totals, "topics": counts}, indent=1)
    lines = [f"{split:<9} {total:>8,} facts, {len(counts[split])} topics" for split, total in totals.items()]
    return "\n".join([*lines, f"written to {output}"])


def make_pocket(output: Path, source: Path | None, seed: int, threads: int) -> str:
    """Make the pocket world and model below `output`; what is finished there already is left as it is."""
    from sftlab.facts.prepare import read_source
    from sftlab.pocket.commands import make_world
    from sftlab.pocket.spec import PocketRuntime, PocketSpec

    spec = PocketSpec(seed=seed, source=str(source) if source else None)
    tables = read_source(source, None)[0] if source else None
    with _bar_once_begun("pre-training") as update:
        made = make_world(
            spec,
            output,
            tables,
            PocketRuntime(threads=threads),
            progress=lambda done, total, loss: update(done, total, f"loss {loss:.3f}"),
        )
    return f"{'' if made else 'found: '}facts in {output / 'facts'}, model in {output / 'model'}"


def change_weights(
    base: Path,
    tuned: Path,
    output: Path,
    percents: str,
    region: str,
    order: str,
    seed: int,
    measure: str,
    layers: str | None,
) -> str:
    """Measure the change of the weights; returns what a person wants to know first."""
    from sftlab.weights.commands import CHANGE_FILE, change

    with _bar_once_begun("measuring") as update:
        found = change(
            base,
            tuned,
            output,
            percents,
            _region(region),
            _order(order),
            seed,
            progress=update,
            measure=_measure(measure),
            layers=layers,
        )
    shares = ", ".join(f"top {top} %: {share:.1%}" for top, share in found.concentration.items())
    return (
        f"{found.changed:,} of {found.weights:,} weights changed; share of the total relative change: {shares}\n"
        f"written to {output / CHANGE_FILE}"
    )


def restore_weights(
    base: Path,
    tuned: Path,
    output: Path,
    percents: str,
    region: str,
    order: str,
    seed: int,
    measure: str,
    layers: str | None,
) -> str:
    """Write a restored model for each percentage."""
    from sftlab.weights.commands import restore

    with _bar_once_begun("restoring") as update:
        found = restore(
            base,
            tuned,
            percents,
            output,
            _region(region),
            _order(order),
            seed,
            progress=update,
            measure=_measure(measure),
            layers=layers,
        )
    lines = [
        f"{output / f'restored-{label}'}: {cut.count:,} of {cut.total:,} weights restored"
        for label, cut in found.cuts.items()
    ]
    return "\n".join(lines)


def _region(name: str) -> Region:
    from sftlab.weights.cut import Region

    return _one_of(name, get_args(Region), "--region")  # type: ignore[return-value]


def _order(name: str) -> Order:
    from sftlab.weights.cut import Order

    return _one_of(name, get_args(Order), "--order")  # type: ignore[return-value]


def _measure(name: str) -> Measure:
    from sftlab.weights.cut import Measure

    return _one_of(name, get_args(Measure), "--measure")  # type: ignore[return-value]


def _one_of(name: str, known: Sequence[str], option: str) -> str:
    if name not in known:
        raise UserError(f"{option} {name}: is none of {', '.join(known)}.")
    return name


def _runtime(file: Path | None, store: Place, overrides: Sequence[str]) -> Runtime:
    """The runtime of a command; `--store` is the same as `--set runtime.store`, and comes last."""
    from sftlab.study.config import RUNTIME_PREFIX, load_runtime

    named = [] if store is None else [f"{RUNTIME_PREFIX}store={json.dumps(str(store))}"]
    return load_runtime(file, [*overrides, *named])


def _open(runtime: Runtime) -> Store:
    """The store of a runtime. Raises UserError where it cannot be one, or does not answer."""
    from sftlab.store.artifact import Store
    from sftlab.store.mirror import HASH_LIMIT

    limit = runtime.hash_up_to_gib
    os.environ[HASH_LIMIT] = (
        "inf" if limit is None else f"{limit:g}"
    )  # for the processes that this one starts, too
    return Store(runtime.store, None if runtime.mirror is None else Path(runtime.mirror))


def open_study(
    study: Path, runtime_file: Path | None, store: Place, overrides: Sequence[str]
) -> tuple[Plan, Runtime, Store]:
    """The plan of a study file, with its runtime and store. Raises UserError for whatever is wrong in them."""
    from sftlab.study.check import check
    from sftlab.study.config import load_study
    from sftlab.study.plan import Plan
    from sftlab.study.sources import require_sizes, resolve

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
    from sftlab.study.preview import plan_json, preview, print_preview

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
    from sftlab.study.build import Build
    from sftlab.study.mend import mending
    from sftlab.study.plan import STAGES
    from sftlab.study.run import found_text, run_study

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
    from sftlab.study.stages.report import report_file
    from sftlab.study.stages.results import summary

    def finish() -> str:
        run_study(build, until)
        return f"{summary(build)}\nreport: {report_file(plan, opened)}"

    steps = [step for step, _ in plan.steps()]
    print(mending(finish, opened, progress, lambda: steps, lambda _: opened.exclusive(lambda: None)))
    if runtime.track:
        from sftlab.study.stages.track import told_how_to_log_later, track_results

        sys.stdout.flush()  # what is recommended stands before what failed
        with told_how_to_log_later("study", study):
            print(f"MLflow: {track_results(build)}")


def open_sweep(path: Path, runtime_file: Path | None, store: Place, overrides: Sequence[str]) -> Sweep:
    """A sweep file with its study, runtime and store. Raises UserError for whatever is wrong in them."""
    from sftlab.study.check import check_sweep
    from sftlab.study.config import load_sweep
    from sftlab.study.sources import require_sizes, resolve
    from sftlab.study.sweep import Sweep

    runtime = _runtime(runtime_file, store, overrides)
    spec, study = load_sweep(path, overrides)
    check_sweep(spec, study, runtime)
    opened = _open(runtime)
    sources = resolve(study, opened.root)
    require_sizes(spec.axes.size, sources, "axes.size")
    return Sweep(spec, study, sources, opened, runtime, _progress())


def print_sweep_plan(path: Path, runtime_file: Path | None, store: Place, overrides: Sequence[str]) -> None:
    """Print how many trials are there and what the others will cost; nothing is computed."""
    from sftlab.study.sweep_cost import check_limits
    from sftlab.study.sweep_plan import plan_sweep

    sweep = open_sweep(path, runtime_file, store, overrides)
    print(plan_sweep(sweep), flush=True)
    check_limits(sweep)


def sweep_to_report(path: Path, runtime_file: Path | None, store: Place, overrides: Sequence[str]) -> None:
    """Run what a sweep lacks, log it, and say what it recommends and where the report lies."""
    from sftlab.study.mend import mending
    from sftlab.study.sweep import run_sweep
    from sftlab.study.sweep_live import live_tracking
    from sftlab.study.sweep_results import steps_of_sweep

    sweep = open_sweep(path, runtime_file, store, overrides)

    def finish() -> None:
        with live_tracking(sweep) as live:
            trials = run_sweep(sweep, live)
        _conclude(sweep, trials, path if sweep.runtime.track else None)

    mending(
        finish,
        sweep.store,
        sweep.progress,
        lambda: steps_of_sweep(sweep),
        lambda step: sweep.store.lock(step.lock),
    )


def _conclude(sweep: Sweep, trials: Sequence[Trial], track: Path | None) -> None:
    """Tables, report and best model of the finished trials; logged last, so that a server's absence costs nothing.

    track: the sweep's file, where it is to be logged.
    """
    from sftlab.study.sweep_results import (
        SweepSteps,
        build_sweep_best,
        build_sweep_report,
        build_sweep_results,
        summary,
    )

    steps = SweepSteps(sweep, trials)
    results = build_sweep_results(steps)
    report = build_sweep_report(steps, results)
    best = build_sweep_best(steps, results)
    print(f"{summary(steps, results)}\nreport: {report}\nmodel: {best}", flush=True)
    if track is not None:
        from sftlab.study.stages.track import told_how_to_log_later
        from sftlab.study.sweep_track import track_sweep

        # Two that log at the same moment would log a trial twice.
        with told_how_to_log_later("sweep", track), sweep.store.lock("tracking"):
            print(f"MLflow: {track_sweep(steps, results, report, best).how_to_look}")


def sweep_report(
    path: Path, runtime_file: Path | None, store: Place, overrides: Sequence[str], time: bool
) -> None:
    """Say where a finished sweep's report lies, made again if it is missing, or where its time went."""
    from sftlab.study.sweep import finished_sweep
    from sftlab.study.sweep_times import time_table

    sweep = open_sweep(path, runtime_file, store, overrides)
    if time:
        print(time_table(sweep))
    else:
        _conclude(sweep, finished_sweep(sweep), None)


def materialize_model(
    id: str,
    runtime_file: Path | None,
    store: Place,
    output: Path | None,
    base: Path | None,
    overrides: Sequence[str],
    plugins: Sequence[str],
) -> None:
    """Write the folder of an evaluated model that is kept as a recipe; plugins may lie in the working folder."""
    from sftlab.strategies import load_plugins
    from sftlab.study.materialize import materialize

    runtime = _runtime(runtime_file, store, overrides)
    opened = _open(runtime)
    load_plugins(plugins, Path.cwd())
    with _bar_once_begun("writing") as update:
        folder = materialize(opened, id, output, base, runtime.tracking, update, plugins)
    print(folder)


def track_finished(path: Path, runtime_file: Path | None, store: Place, overrides: Sequence[str]) -> None:
    """Log a finished study or sweep to MLflow. Raises UserError where it is not finished."""
    from sftlab.study.config import is_sweep

    if is_sweep(path):
        from sftlab.study.sweep import finished_sweep

        sweep = open_sweep(path, runtime_file, store, overrides)
        _conclude(sweep, finished_sweep(sweep), path)
        return
    from sftlab.study.build import Build
    from sftlab.study.stages.track import track_results

    plan, runtime, opened = open_study(path, runtime_file, store, overrides)
    print(f"MLflow: {track_results(Build(plan, opened, runtime, _progress()))}")


def verify_store(runtime_file: Path | None, store: Place, overrides: Sequence[str]) -> None:
    """Read all results of a store, and set the damaged ones aside. Raises UserError where there were some."""
    from sftlab.store.commands import verify

    verify(_open(_runtime(runtime_file, store, overrides)))
