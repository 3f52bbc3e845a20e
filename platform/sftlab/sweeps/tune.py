"""The trials of a sweep under Ray Tune: how many at once, which next, and when to stop one early."""

from __future__ import annotations

import logging
import math
import shutil
import traceback
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Generic
from uuid import uuid4

from sftlab.errors import UserError
from sftlab.files import write_text
from sftlab.inference.actors import EngineLostError
from sftlab.store.mirror import push
from sftlab.strategies import load_plugins
from sftlab.sweeps.outcome import mean_outcome
from sftlab.sweeps.pools import cluster_sizes
from sftlab.sweeps.progress import SweepState
from sftlab.sweeps.records import entry_name, write_record
from sftlab.sweeps.searches import SCORE, Points, Search
from sftlab.sweeps.trial import Config, T, TrialContext, Trials

RESOURCES = {"CPU": 0.001}  # a trial only waits; what computes belongs to the pools


@dataclass(frozen=True)
class TuneRunner(Generic[T]):
    """Runs points of a search under Ray Tune, and keeps the state that is shown meanwhile."""

    search: Search[T]
    context: TrialContext
    state: SweepState

    def run(self, points: Points[T]) -> list[tuple[str, str]]:
        """Build the trials of all points; returns (trial, reason) of those that failed."""
        from ray import tune

        def one(
            config: dict[str, Any], context: TrialContext, trials: Trials[T], points: Points[T], folder: Path
        ) -> None:
            _run_point(context, trials, points, config, folder)

        bound = tune.with_parameters(
            one, context=self.context, trials=self.search.trials, points=points, folder=self.search.records
        )
        return self.run_trainable(bound, points)

    def run_trainable(self, trainable: Any, points: Points[T]) -> list[tuple[str, str]]:
        """Run a trainable on all points; returns (trial, reason) of those that failed.

        Those that were lost (`is_lost`) run again once the others are done, `sweep.max_failures` times at most, and
        find what they had finished. Ray Tune's retries would repeat trials that raised an error of their code too.
        """
        # Asked once: a node that is lost meanwhile comes back, or its trials wait.
        at_once = cluster_sizes(self.context.runtime).trials
        scheduler = self._scheduler()  # one, so that what runs again is halved against all that ran before
        failed: list[tuple[str, str]] = []
        again: list[Config] | None = None
        for left in reversed(range(self.context.runtime.sweep.max_failures + 1)):
            lost: list[Config] = []
            for config, error in self._fit(trainable, at_once, scheduler, points, again):
                if left and is_lost(error):
                    lost.append(config)
                else:
                    failed.append((entry_name(points.trials_of(config)), _reason(error)))
            self.state.failed -= len(lost)
            self.state.lost += len(lost)
            if not lost:
                break
            again = lost
        return failed

    def _fit(
        self,
        trainable: Any,
        at_once: int,
        scheduler: Any,
        points: Points[T],
        again: Sequence[Config] | None,
    ) -> list[tuple[Config, BaseException]]:
        """One call of Ray Tune on all points, or on these again, so many at once; returns those that failed."""
        from ray import tune

        param_space, search, count = points.draw(again)
        folder = self.search.records.parent
        name = f"tune-{uuid4().hex[:12]}"  # never read again: what is finished is in the store
        # It misses the files that are not written (TUNE_DISABLE_AUTO_CALLBACK_LOGGERS).
        logging.getLogger("ray.tune.analysis.experiment_analysis").setLevel(logging.ERROR)
        configs: list[Config] = []
        tuner = tune.Tuner(
            tune.with_resources(trainable, RESOURCES),
            param_space=param_space,
            tune_config=tune.TuneConfig(
                search_alg=search,
                scheduler=scheduler,
                num_samples=count,
                max_concurrent_trials=at_once,
                reuse_actors=True,
            ),
            run_config=tune.RunConfig(
                name=name,
                storage_path=str(folder),
                verbose=0,
                callbacks=[_watch(self.state, points, self.search.trials, configs)],
            ),
        )
        try:
            grid = tuner.fit()
        finally:
            shutil.rmtree(folder / name, ignore_errors=True)
        assert len(configs) == len(grid), "the callback has seen every trial"
        ended = zip(configs, (grid[number].error for number in range(len(grid))), strict=True)
        return [(config, error) for config, error in ended if error is not None]

    def _scheduler(self) -> Any:
        halving = self.search.halving
        if halving is None:
            return None
        from ray.tune.schedulers import ASHAScheduler

        return ASHAScheduler(
            metric=SCORE,
            mode="max",
            time_attr="epochs",
            grace_period=1,
            max_t=halving.max_epochs,
            reduction_factor=halving.factor,
        )


def _run_point(
    context: TrialContext, trials: Trials[T], points: Points[T], config: Config, folder: Path
) -> None:
    """The trials of one point in one process: a rung after the other, each recorded, their mean reported."""
    from ray import tune

    load_plugins(context.plugins)  # before the trials are made: their strategies may be among them
    for rung in zip(*map(trials.rungs_of, points.trials_of(config)), strict=True):
        outcomes = trials.build(context, rung)
        mean = mean_outcome(outcomes)
        for trial, outcome in zip(rung, outcomes, strict=True):
            write_record(folder, trial, config, replace(mean, times=outcome.times))
        if math.isnan(mean.score):
            raise UserError(
                f"{context.metric} is not a number, as no question was asked for it", place=rung[0].name
            )
        tune.report({SCORE: mean.score, "percent": mean.percent, "epochs": rung[0].epochs})


def _watch(state: SweepState, points: Points[T], trials: Trials[T], configs: list[Config]) -> Any:
    """A callback of Ray Tune that keeps the state that is shown, and marks which trials are done.

    configs: receives those of all trials in the order of Tune's results, which lack it where a trial was lost before
    it reported anything.
    """
    from ray import tune

    class Watch(tune.Callback):
        def on_trial_start(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
            del iteration, trial, info
            state.running = sum(one.status == "RUNNING" for one in trials)

        def on_trial_result(
            self, iteration: int, trials: list[Any], trial: Any, result: dict[str, Any], **info: Any
        ) -> None:
            del iteration, trials, info
            if SCORE in result:
                report(trial.config, result)

        def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
            del iteration, info
            configs[:] = [one.config for one in trials]
            for marker in points.done_markers(trial.config, str(trial.trial_id)):
                write_text(marker, "")
                push(marker)
            state.done += 1
            state.running = sum(one.status == "RUNNING" for one in trials if one is not trial)

        def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
            del iteration, info
            configs[:] = [one.config for one in trials]
            state.failed += 1
            state.running = sum(one.status == "RUNNING" for one in trials if one is not trial)

    def report(config: Config, result: dict[str, Any]) -> None:
        entry = points.trials_of(config)
        state.observe(entry_name(entry), result["percent"], result[SCORE])
        for rung in (rung for trial in entry for rung in trials.rungs_of(trial)):
            if state.live is not None and rung.epochs == result["epochs"]:
                state.live.add(rung)

    return Watch()


def is_lost(error: BaseException) -> bool:
    """Whether a trial ended with its process, its node or a call to a pool, and not by an error of its code."""
    from ray.exceptions import RayActorError, RayTaskError

    if isinstance(error, RayTaskError):
        return isinstance(error.cause, EngineLostError)
    return not (isinstance(error, RayActorError) and error.actor_init_failed)


def _reason(error: BaseException) -> str:
    """The last line of the error that ended a trial."""
    cause = getattr(error, "cause", None) or error
    return "".join(traceback.format_exception_only(cause)).strip().removeprefix("sftlab.errors.UserError: ")
