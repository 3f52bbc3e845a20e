"""Runs a sweep: what all trials share first, then the trials that are missing, then tables and report."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache, cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sftlab.errors import UserError
from sftlab.store.artifact import Store
from sftlab.store.fingerprint import fingerprint
from sftlab.store.mirror import pull
from sftlab.study.build import Build
from sftlab.study.cluster import ray_cluster
from sftlab.study.plan import Cell, Cost, Plan
from sftlab.study.progress import Progress
from sftlab.study.run import run_study
from sftlab.study.runtime import Runtime
from sftlab.study.sources import Sources
from sftlab.study.spec import StudySpec
from sftlab.study.stages.evaluation import evaluation_request
from sftlab.study.stages.training_sets import build_training_sets, read_candidates
from sftlab.study.stages.tuned import sft_run
from sftlab.study.sweep_pools import StartPools, pool_sizes, start_pools
from sftlab.study.sweep_spec import SweepSpec
from sftlab.study.sweep_trial import Bench
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
        """What the sweep is: its axes and search, its study, and the content of the study's files."""
        # A search with more trials is the same search, which goes on.
        left_out: Any = {"limits": True, "study": True, "set": True, "search": {"trials"}}
        spec = self.spec.model_dump(mode="json", exclude=left_out)
        named = {**self.sources.facts, "model": self.sources.model or ""}
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

    def cell(self, trial: Trial) -> Cell:
        """The cell of a trial; what the trials of a variant share is worked out once."""
        key = (trial.variant, trial.spec.restore.percents)
        if key not in self._plans:
            self._plans[key] = Plan(trial.spec, self.sources, ())
        return self._plans[key].cell(trial.data, trial.size, trial.seed)

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


def run_sweep(sweep: Sweep, live: LiveTracking | None = None) -> list[Trial]:
    """Build every trial that is missing; returns all finished ones. Kill it and call it again: it goes on.

    `live` hears of every trial that finishes.

    Raises UserError where the sweep would cost more than its limits, before anything runs, and, once all
    others are finished, where trials failed.
    """
    check_limits(sweep)
    trials = list(sweep.listed())
    with sweep.store.listed(*LADDER):
        pending = [trial for trial in trials if not is_finished(sweep, trial)]
    optuna = sweep.spec.search.kind == "optuna"
    left = _trials_left(sweep) if optuna else len(pending)
    if left:
        sweep.sources.require()
        state = SweepState(
            len(trials) or (sweep.spec.search.trials or 0), 0, sweep.spec.search.metric, live=live
        )
        state.found = state.total - left
        failed = _run_missing(sweep, pending, state, left)
        if failed:
            shown = "\n".join(f"  {name}: {reason}" for name, reason in failed[:10])
            raise UserError(
                f"{len(failed)} trials of the sweep {sweep.spec.name} failed, all others are finished; mend what "
                f"follows and run it again.\n{shown}"
            )
    return finished_trials(sweep, trials)


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


def check_limits(sweep: Sweep) -> None:
    """Raises UserError where a limit of the sweep lies below its planned cost, HITs included."""
    limits = sweep.spec.limits
    if sweep.spec.search.kind == "optuna":
        sweep.maker.dearest()  # a strategy that does not fit the data is told before anything runs
    if all(value is None for value in limits.model_dump().values()):
        return
    planned = _planned(sweep)
    over = [
        f"limits.{name} is {limit:,}, and the sweep plans {planned[name]:,}"
        for name, limit in limits.model_dump().items()
        if limit is not None and planned[name] > limit
    ]
    if over:
        raise UserError(
            f"The sweep {sweep.spec.name} is larger than its limits; nothing has run. {'; '.join(over)}. "
            "Shorten an axis, or raise the limit."
        )


def _planned(sweep: Sweep) -> dict[str, int]:
    """What a sweep takes at most, by the names of its limits."""

    def of(trial: Trial) -> Counter[str]:
        rungs = sweep.maker.rungs_of(trial)
        models = sum(len(rung.spec.restore.percents) for rung in rungs)
        cost = sum((trial_cost(sweep, rung) for rung in rungs), Cost())
        return Counter(
            max_cells=len(rungs),
            max_models=models,
            max_generated_tokens=cost.generated_tokens,
            max_trained_tokens=cost.trained_tokens,
            max_cost=cost.generated_tokens + cost.trained_tokens,
        )

    if sweep.spec.search.kind == "optuna":
        # A sampler's trials are not known yet; each takes at most what the dearest point of the space does.
        each, trials = [of(trial) for trial in sweep.maker.dearest()], sweep.spec.search.trials or 0
        return {name: trials * max(one[name] for one in each) for name in each[0]}
    total: Counter[str] = Counter()
    for trial in sweep.listed():
        total.update(of(trial))
    return total


def trial_cost(sweep: Sweep, trial: Trial) -> Cost:
    """What a trial takes when nothing of it is there; generated tokens are an upper bound."""
    from sftlab.study.plan import EVALUATION_SPLITS

    counts, models = sweep.sources.fact_counts, len(trial.spec.restore.percents)
    asked = models * (sum(counts[split] for split in EVALUATION_SPLITS) + trial.size)
    sft = trial.spec.sft
    cost = tuning_cost(sweep, trial.size, sft.epochs)
    if sft.mask is not None:  # its probe is a run before this one
        cost += tuning_cost(sweep, sft.mask.size, sft.epochs)
    return cost + Cost(completions=asked, generated_tokens=asked * trial.spec.answers.max_tokens)


def tuning_cost(sweep: Sweep, facts: int, epochs: int) -> Cost:
    """What one fine-tuning run on this many facts takes."""
    from sftlab.study.plan import TOKENS_PER_EXAMPLE

    return Cost(trained_tokens=facts * epochs * TOKENS_PER_EXAMPLE, bytes_written=sweep.sources.model_bytes)


def finished_trials(sweep: Sweep, listed: Sequence[Trial]) -> list[Trial]:
    """The trials with their ladders evaluated: of a search those that have records, every rung for itself."""
    searched = sweep.spec.search.kind == "optuna"
    if not searched and sweep.spec.halving is None:
        return list(listed)
    chosen = listed
    if searched:
        chosen = [sweep.maker.trial(sweep.maker.point(r.config)) for r in read_records(sweep.records)]
    rungs = {
        record_file(sweep.records, rung): rung for trial in chosen for rung in sweep.maker.rungs_of(trial)
    }
    pull(sweep.records)
    return [rung for file, rung in rungs.items() if file.exists()]


def _trials_left(sweep: Sweep) -> int:
    assert sweep.spec.search.trials is not None
    return max(0, sweep.spec.search.trials - trials_over(sweep.records))


def _run_missing(
    sweep: Sweep, pending: Sequence[Trial], state: SweepState, left: int
) -> list[tuple[str, str]]:
    """Start the pools and run what is missing; returns the trials that failed with their reasons."""
    base = sweep.base

    def wait() -> None:
        sweep.progress.say(f"another run builds in {sweep.store}; waiting for it")

    with ray_cluster(sweep.runtime, sweep.progress.say):
        import ray  # not before its environment is set

        run_study(base, "mastery", wait)
        for step in filter(None, (base.plan.facts, base.plan.model, base.plan.mastery)):
            base.read(
                step
            )  # damaged ones are found here, where they can be built again, and not in every trial
        with sweep.store.shared(wait):
            sizes = pool_sizes(sweep.runtime, ray.cluster_resources())
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

            with watching(state, sweep.progress, usage):
                if sweep.spec.search.kind == "optuna":
                    return run_search(bench, sweep.maker, left, sweep.records, state)
                return run_listed(bench, pending, sweep.maker, sweep.records, state)


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
    runs = {}
    for trial in pending:
        build = sweep.build(sweep.maker.rungs_of(trial)[0])
        (cell,) = build.plan.cells
        first = cell.probe or cell
        if build.missing(first.tuned):
            runs[first.run_id] = sft_run(build, first)
    return list(runs.values())


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
