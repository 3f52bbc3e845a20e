"""Runs a sweep: what all trials share first, then the trials that are missing, then tables and report."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from typing import TYPE_CHECKING, Any

from sftlab.cluster.session import ray_cluster
from sftlab.execution.run import run_study
from sftlab.studies.knowledge.build import KnowledgeBuild
from sftlab.studies.knowledge.pipeline import LADDER_STAGES
from sftlab.studies.knowledge.stages.evaluation import evaluation_request
from sftlab.studies.knowledge.stages.training_sets import build_training_sets, read_candidates
from sftlab.studies.knowledge.sweep.cost import check_limits
from sftlab.studies.knowledge.sweep.sweep import Sweep, finished_trials, is_finished
from sftlab.studies.knowledge.sweep.trial import first_run
from sftlab.studies.knowledge.sweep.trials import Trial, check_sweep_model
from sftlab.sweeps.pools import cluster_sizes
from sftlab.sweeps.progress import SweepState
from sftlab.sweeps.run import raise_failed, run_points
from sftlab.sweeps.searches import Points
from sftlab.sweeps.trial import TrialContext

if TYPE_CHECKING:
    from sftlab.sweeps.live import LiveTracking


def run_sweep(sweep: Sweep, live: LiveTracking[Trial] | None = None) -> list[Trial]:
    """Build every trial that is missing; returns all finished ones. Kill it and call it again: it goes on.

    `live` gets every trial that finishes.

    Raises UserError where the sweep would cost more than its limits, before anything runs, and, once all
    others are finished, where trials failed.
    """
    check_limits(sweep)
    entries = list(sweep.search.entries())
    with sweep.store.listed(*LADDER_STAGES):
        pending = [entry for entry in entries if not all(is_finished(sweep, trial) for trial in entry)]
    points = sweep.search.points(pending)
    if points.count:
        sweep.sources.outside.require()
        check_sweep_model(sweep.spec, sweep.study, sweep.runtime)
        state = SweepState(
            len(entries) or (sweep.spec.search.trials or 0), 0, sweep.spec.search.metric, live=live
        )
        state.found = state.total - points.count
        raise_failed(sweep.spec.name, _run_missing(sweep, pending, points, state))
    return finished_trials(sweep, [trial for entry in entries for trial in entry])


def _run_missing(
    sweep: Sweep, entries: Sequence[Sequence[Trial]], points: Points[Trial], state: SweepState
) -> list[tuple[str, str]]:
    """Start the pools and run what is missing; returns the trials that failed with their reasons."""
    base, pending = sweep.base, [trial for entry in entries for trial in entry]

    def wait() -> None:
        sweep.progress.say(f"another run builds in {sweep.store}; waiting for it")

    runtime = sweep.runtime
    with ray_cluster(
        runtime.most_bundles, runtime.gpu_wait_minutes, runtime.logical_cpus, sweep.progress.say
    ):
        import ray  # not before its environment is set

        sizes = cluster_sizes(sweep.runtime)  # too few GPUs are reported before mastery is scored
        run_study(base, "mastery", wait)
        for step in filter(None, (base.plan.facts, base.plan.model, base.plan.mastery)):
            # Corrupt ones are found here, where they can be built again, and not in every trial.
            base.read(step)
        with sweep.store.shared(wait):
            name = f"sftlab-{sweep.id[:12]}"
            engines, training = sweep.start(sweep.runtime, sizes, name, sweep.store)
            context = TrialContext(
                sweep.store, sweep.runtime, name, sweep.spec.search.metric, sweep.spec.plugins
            )
            draw_training_sets(sweep, pending)
            ray.get(training.submit.remote(_first_runs(sweep, pending)))
            _answer_with_base(base, engines)
            return run_points(sweep.search, points, context, state, sweep.progress)


def draw_training_sets(sweep: Sweep, pending: Sequence[Trial]) -> None:
    """All training sets first: a bucket with too few facts is reported before anything is trained."""
    candidates = cache(lambda: replace(read_candidates(sweep.base), sizes=sweep.spec.axes.size))
    with sweep.progress.bar("training sets") as bar:
        for done, trial in enumerate(pending):
            bar.update(done, len(pending), trial.cell)
            with sweep.store.lock("training-sets"):
                build_training_sets(sweep.build(trial), candidates)


def _first_runs(sweep: Sweep, pending: Sequence[Trial]) -> list[Any]:
    """The fine-tuning that can begin at once, in the order of the trials, so that few worker groups do all."""
    runs = [first_run(sweep.build(sweep.maker.rungs_of(trial)[0])) for trial in pending]
    return list({run.run_id: run for run in runs if run is not None}.values())


def _answer_with_base(base: KnowledgeBuild, engines: Any) -> None:
    from sftlab.inference.actors import result

    with base.store.lock(base.plan.base_evaluation.lock):
        if not base.missing(base.plan.base_evaluation):
            return
        with base.progress.bar("base model's answers"):
            steps, request = evaluation_request(base)
            result(engines.evaluate.remote(request))
            for item in request.items:
                base.commit(steps[item.id])
