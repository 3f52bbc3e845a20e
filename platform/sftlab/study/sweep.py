"""Runs a sweep: what all trials share first, then the trials that are missing, then tables and report."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache, cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sftlab.errors import UserError
from sftlab.store.artifact import Store
from sftlab.store.fingerprint import fingerprint
from sftlab.store.mirror import pull
from sftlab.strategies import source_of
from sftlab.study.build import Build
from sftlab.study.check import check_sweep_model
from sftlab.study.cluster import ray_cluster
from sftlab.study.plan import Cell, Plan
from sftlab.study.progress import Progress
from sftlab.study.run import run_study
from sftlab.study.runtime import Runtime
from sftlab.study.sources import Sources
from sftlab.study.spec import StudySpec
from sftlab.study.stages.evaluation import evaluation_request
from sftlab.study.stages.training_sets import build_training_sets, read_candidates
from sftlab.study.sweep_cost import check_limits
from sftlab.study.sweep_pools import StartPools, cluster_sizes, start_pools
from sftlab.study.sweep_spec import SweepSpec
from sftlab.study.sweep_times import keeping_starts
from sftlab.study.sweep_trial import Bench, first_run
from sftlab.study.sweep_tune import (
    over_file,
    read_records,
    record_file,
    run_listed,
    run_search,
    trials_over,
)
from sftlab.study.sweep_watch import SweepState, watching
from sftlab.study.trials import Trial, TrialMaker

if TYPE_CHECKING:
    from sftlab.study.sweep_live import LiveTracking


LADDER = ("change", "evaluation")  # the stages that tell whether a trial is finished


@dataclass(frozen=True)
class Sweep:
    """A sweep over a study, with its store and resources."""

    spec: SweepSpec
    study: StudySpec
    sources: Sources
    store: Store
    runtime: Runtime
    progress: Progress
    start: StartPools = start_pools  # what starts its engines and worker groups

    @cached_property
    def maker(self) -> TrialMaker:
        return TrialMaker(self.spec, self.study)

    @cached_property
    def id(self) -> str:
        """What the sweep is: its axes and search, its study, and the content of its files and custom strategies."""
        # A search with more trials is the same search, which goes on.
        left_out: Any = {"limits": True, "study": True, "set": True, "search": {"trials"}}
        spec = self.spec.model_dump(mode="json", exclude=left_out)
        named = {**self.sources.facts, "model": self.sources.model or ""}
        methods = {choice.name for choice in self.spec.axes.strategy} | {self.study.restore.method}
        custom = {name: source_of(name) for name in methods if name is not None}
        named |= {f"strategy {name}": source for name, source in custom.items() if source is not None}
        made_of = {"sweep": spec, "study": self.study.model_dump(mode="json", exclude={"name", "plugins"})}
        return fingerprint("sweep", 1, made_of, named)

    @property
    def folder(self) -> Path:
        """Where the records of trials lie, and what a search has learnt."""
        return self.store.root / "sweeps" / f"{self.spec.name}-{self.id[:12]}"

    @property
    def records(self) -> Path:
        return self.folder / "trials"

    @cached_property
    def base(self) -> Build:
        """The study itself: facts, model, mastery and the base model's answers are shared by all trials."""
        return Build(Plan(self.study, self.sources, ()), self.store, self.runtime, self.progress)

    def build(self, trial: Trial) -> Build:
        """The build of a trial's one cell."""
        return Build(trial.plan(self.sources), self.store, self.runtime, self.progress)

    def plan_of(self, trial: Trial) -> Plan:
        """A plan without cells, of what the trials of a variant share; worked out once."""
        key = (trial.variant, trial.spec.restore.percents)
        if key not in self._plans:
            self._plans[key] = Plan(trial.spec, self.sources, ())
        return self._plans[key]

    def cell(self, trial: Trial) -> Cell:
        """The cell of a trial."""
        return self.plan_of(trial).cell(trial.data, trial.size, trial.seed)

    @cached_property
    def _plans(self) -> dict[Any, Plan]:
        return {}

    def listed(self) -> Iterator[Trial]:
        """The trials that are known before any has run, each once; none where a sampler chooses."""
        kind = self.spec.search.kind
        made = self.maker.grid() if kind == "grid" else self.maker.random() if kind == "random" else iter(())
        seen: set[str] = set()
        for trial in made:
            key = record_file(self.records, trial).name
            if key not in seen:
                seen.add(key)
                yield trial

    def entries(self) -> Iterator[tuple[Trial, ...]]:
        """What Ray Tune runs as one: a listed trial, or where the sweep halves, those of all seeds of a point.

        Halving judges a point by the mean of its seeds: no training set goes on alone because it was a lucky one.
        """
        if self.spec.halving is None:
            yield from ((trial,) for trial in self.listed())
            return
        points: dict[Any, list[Trial]] = {}
        for trial in self.listed():
            key = (trial.variant, trial.data, trial.size, trial.spec.restore.percents)
            points.setdefault(key, []).append(trial)
        yield from map(tuple, points.values())


def run_sweep(sweep: Sweep, live: LiveTracking | None = None) -> list[Trial]:
    """Build every trial that is missing; returns all finished ones. Kill it and call it again: it goes on.

    `live` hears of every trial that finishes.

    Raises UserError where the sweep would cost more than its limits, before anything runs, and, once all
    others are finished, where trials failed.
    """
    check_limits(sweep)
    entries = list(sweep.entries())
    with sweep.store.listed(*LADDER):
        pending = [entry for entry in entries if not all(is_finished(sweep, trial) for trial in entry)]
    optuna = sweep.spec.search.kind == "optuna"
    left = _trials_left(sweep) if optuna else len(pending)
    if left:
        sweep.sources.require()
        check_sweep_model(sweep.spec, sweep.study)
        state = SweepState(
            len(entries) or (sweep.spec.search.trials or 0), 0, sweep.spec.search.metric, live=live
        )
        state.found = state.total - left
        failed = _run_missing(sweep, pending, state, left)
        if failed:
            shown = "\n".join(f"  {name}: {reason}" for name, reason in failed[:10])
            raise UserError(
                f"{len(failed)} trials of the sweep {sweep.spec.name} failed, all others are finished; mend what "
                f"follows and run it again.\n{shown}"
            )
    return finished_trials(sweep, [trial for entry in entries for trial in entry])


def finished_sweep(sweep: Sweep) -> list[Trial]:
    """All trials of a finished sweep, as `run_sweep` returns them. Raises UserError where some are missing."""
    trials = list(sweep.listed())
    optuna = sweep.spec.search.kind == "optuna"
    with sweep.store.listed(*LADDER):
        left = _trials_left(sweep) if optuna else sum(not is_finished(sweep, trial) for trial in trials)
    if left:
        raise UserError(f"The sweep {sweep.spec.name} lacks {left:,} trials; `sftlab sweep` runs them.")
    return finished_trials(sweep, trials)


def is_finished(sweep: Sweep, trial: Trial) -> bool:
    """Whether a trial's ladder is evaluated, or where the sweep halves, whether the trial is over."""
    if sweep.spec.halving is not None:
        return pull(over_file(sweep.records, trial)).exists()
    cell = sweep.cell(trial)
    return not sweep.base.missing(cell.change, *cell.evaluations.values())


def finished_trials(sweep: Sweep, listed: Sequence[Trial]) -> list[Trial]:
    """The trials with their ladders evaluated: of a search those that have records, every rung for itself."""
    searched = sweep.spec.search.kind == "optuna"
    if not searched and sweep.spec.halving is None:
        return list(listed)
    chosen = listed
    if searched:
        chosen = [t for r in read_records(sweep.records) for t in sweep.maker.trials_of(r.config)]
    rungs = {
        record_file(sweep.records, rung): rung for trial in chosen for rung in sweep.maker.rungs_of(trial)
    }
    pull(sweep.records)
    return [rung for file, rung in rungs.items() if file.exists()]


def _trials_left(sweep: Sweep) -> int:
    assert sweep.spec.search.trials is not None
    return max(0, sweep.spec.search.trials - trials_over(sweep.records))


def _run_missing(
    sweep: Sweep, entries: Sequence[Sequence[Trial]], state: SweepState, left: int
) -> list[tuple[str, str]]:
    """Start the pools and run what is missing; returns the trials that failed with their reasons."""
    base, pending = sweep.base, [trial for entry in entries for trial in entry]

    def wait() -> None:
        sweep.progress.say(f"another run builds in {sweep.store}; waiting for it")

    with ray_cluster(sweep.runtime, sweep.progress.say):
        import ray  # not before its environment is set

        sizes = cluster_sizes(sweep.runtime)  # too few GPUs are told before mastery is scored
        run_study(base, "mastery", wait)
        for step in filter(None, (base.plan.facts, base.plan.model, base.plan.mastery)):
            base.read(
                step
            )  # damaged ones are found here, where they can be built again, and not in every trial
        with sweep.store.shared(wait):
            name = f"sftlab-{sweep.id[:12]}"
            engines, training = sweep.start(sweep.runtime, sizes, name, sweep.store)
            bench = Bench(
                sweep.sources, sweep.store, sweep.runtime, name, sweep.spec.search.metric, sweep.spec.plugins
            )
            _draw_training_sets(sweep, pending)
            ray.get(training.submit.remote(_first_runs(sweep, pending)))
            _answer_with_base(base, engines)
            state.begin()
            for record in read_records(sweep.records):
                state.tell(record.trial, record.percent, record.score)

            def usage() -> dict[str, Any]:
                pools = {"engines": engines, "training": training}
                return dict(
                    zip(pools, ray.get([pool.stats.remote() for pool in pools.values()]), strict=True)
                )

            with watching(state, sweep.progress, usage), keeping_starts(sweep.folder, usage):
                if sweep.spec.search.kind == "optuna":
                    return run_search(bench, sweep.maker, left, sweep.records, state)
                return run_listed(bench, entries, sweep.maker, sweep.records, state)


def _draw_training_sets(sweep: Sweep, pending: Sequence[Trial]) -> None:
    """All training sets first: a bucket with too few facts is told before anything is trained."""
    candidates = cache(partial(read_candidates, sweep.base))
    with sweep.progress.bar("training sets") as bar:
        for done, trial in enumerate(pending):
            bar.update(done, len(pending), trial.cell)
            with sweep.store.lock("training-sets"):
                build_training_sets(sweep.build(trial), candidates)


def _first_runs(sweep: Sweep, pending: Sequence[Trial]) -> list[Any]:
    """The fine-tuning that can begin at once, in the order of the trials, so that few worker groups do all."""
    runs = [first_run(sweep.build(sweep.maker.rungs_of(trial)[0])) for trial in pending]
    return list({run.run_id: run for run in runs if run is not None}.values())


def _answer_with_base(base: Build, engines: Any) -> None:
    from sftlab.inference.actors import result

    with base.store.lock(base.plan.base_evaluation.lock):
        if not base.missing(base.plan.base_evaluation):
            return
        with base.progress.bar("base model's answers"):
            steps, request = evaluation_request(base)
            result(engines.evaluate.remote(request))
            for item in request.items:
                base.commit(steps[item.id])
