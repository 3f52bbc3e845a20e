"""The trials of a sweep under Ray Tune: how many at once, which next, and when to stop one early."""

from __future__ import annotations

import logging
import math
import shutil
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from uuid import uuid4

from sftlab.errors import UserError
from sftlab.files import write_text
from sftlab.inference.actors import EngineLostError
from sftlab.store.mirror import push
from sftlab.strategies import load_plugins
from sftlab.studies.knowledge.sweep.trial import Bench, build_point
from sftlab.studies.knowledge.sweep.trials import Trial, TrialMaker, space
from sftlab.sweeps.pools import cluster_sizes
from sftlab.sweeps.progress import SweepState
from sftlab.sweeps.records import entry_name, mean_outcome, over_file, trials_over, write_record
from sftlab.sweeps.search import Range

SCORE = "score"
RESOURCES = {"CPU": 0.001}  # a trial only waits; what computes belongs to the pools
Config = Mapping[str, Any]
"""A point as Ray Tune hands it to a trial."""
Points = Callable[[Sequence[Config] | None], tuple[dict[str, Any], Any, int]]
"""Parameter space, search algorithm and number of samples: of the given points again, or, without, of all."""


def run_listed(
    bench: Bench, entries: Sequence[Sequence[Trial]], maker: TrialMaker, folder: Path, state: SweepState
) -> list[tuple[str, str]]:
    """Run trials that are known beforehand, those of an entry as one; returns (trial, reason) of the failed ones."""
    from ray import tune

    def one(
        config: dict[str, Any], bench: Bench, entries: Sequence[Sequence[Trial]], maker: TrialMaker
    ) -> None:
        _run(bench, maker, entries[config["trial"]], config, folder)

    bound = tune.with_parameters(one, bench=bench, entries=list(entries), maker=maker)
    fit = Fit(maker, bench, state, folder, lambda config: entries[config["trial"]])
    return fit(bound, listed([{"trial": number} for number in range(len(entries))]))


def listed(configs: Sequence[Config]) -> Points:
    """These points, each once."""
    from ray import tune

    def draw(again: Sequence[Config] | None) -> tuple[dict[str, Any], Any, int]:
        numbers = [config["trial"] for config in (configs if again is None else again)]
        return {"trial": tune.grid_search(numbers)}, None, 1

    return draw


def run_search(
    bench: Bench, maker: TrialMaker, count: int, folder: Path, state: SweepState
) -> list[tuple[str, str]]:
    """Let Optuna choose `count` further points; what it has learnt so far stands in its journal file."""
    from ray import tune

    def one(config: dict[str, Any], bench: Bench, maker: TrialMaker) -> None:
        _run(bench, maker, maker.trials_of(config), config, folder)

    bound = tune.with_parameters(one, bench=bench, maker=maker)
    fit = Fit(maker, bench, state, folder, maker.trials_of)
    return fit(bound, searched(maker, folder, count))


def searched(maker: TrialMaker, folder: Path, count: int) -> Points:
    """`count` points that Optuna chooses."""
    import optuna
    from ray.tune.search.optuna import OptunaSearch

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    folder.mkdir(parents=True, exist_ok=True)

    def draw(again: Sequence[Config] | None) -> tuple[dict[str, Any], Any, int]:
        search = OptunaSearch(
            metric=SCORE,
            mode="max",
            points_to_evaluate=None if again is None else [dict(config) for config in again],
            # A search that goes on must not begin with its first draws again.
            sampler=optuna.samplers.TPESampler(seed=maker.sweep.search.seed + trials_over(folder)),
            study_name=maker.sweep.name,
            storage=_journal(folder.parent / "optuna.journal"),
        )
        param_space = {name: _domain(domain) for name, domain in space(maker.sweep).items()}
        return param_space, search, count if again is None else len(again)

    return draw


def _journal(path: Path) -> Any:
    """What a search has learnt, a JSON line an event. Raises UserError where it cannot be read."""
    from optuna.storages import JournalStorage
    from optuna.storages.journal import JournalFileBackend

    try:
        return JournalStorage(JournalFileBackend(str(path)))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(
            f"{path}: is no readable journal of a search ({type(error).__name__}: {error}); delete it, and run again: "
            "trials that are finished stand."
        ) from error


def _run(
    bench: Bench, maker: TrialMaker, trials: Sequence[Trial], config: Mapping[str, Any], folder: Path
) -> None:
    """The trials of one point in one process: a rung after the other, each recorded, their mean reported."""
    from ray import tune

    load_plugins(bench.plugins)
    for rung in zip(*map(maker.rungs_of, trials), strict=True):
        outcomes = build_point(bench, rung)
        mean = mean_outcome(outcomes)
        for trial, own in zip(rung, outcomes, strict=True):
            write_record(folder, trial, config, replace(mean, times=own.times))
        if math.isnan(mean.score):
            raise UserError(
                f"{rung[0].name}: {bench.metric} is not a number, as no question was asked for it."
            )
        tune.report({SCORE: mean.score, "percent": mean.percent, "epochs": rung[0].spec.sft.epochs})


def _domain(domain: tuple[Any, ...] | Range) -> Any:
    from ray import tune

    if not isinstance(domain, Range):
        return tune.choice(list(domain))
    draw = tune.loguniform if domain.log else tune.uniform
    return draw(domain.low, domain.high)


@dataclass(frozen=True)
class Fit:
    """Trials under Ray Tune, and what it tells while they go on."""

    maker: TrialMaker
    bench: Bench
    state: SweepState
    folder: Path
    trials_of: Callable[[Config], Sequence[Trial]]

    def __call__(self, trainable: Any, points: Points) -> list[tuple[str, str]]:
        """Run all points; returns (trial, reason) of those that failed.

        Those that were lost (`is_lost`) run again once the others are over, `sweep.max_failures` times at most, and
        find what they had finished. Ray Tune's own retries would repeat trials that failed by an error of theirs too.
        """
        # Asked once: a node that is lost meanwhile comes back, or its trials wait.
        at_once = cluster_sizes(self.bench.runtime).trials
        scheduler = self._scheduler()  # one, so that what runs again is halved against all that ran before
        failed: list[tuple[str, str]] = []
        again: list[Config] | None = None
        for left in reversed(range(self.bench.runtime.sweep.max_failures + 1)):
            lost: list[Config] = []
            for one in self._fit(trainable, at_once, scheduler, *points(again)):
                if one.error and left and is_lost(one.error):
                    lost.append(one.config)
                elif one.error:
                    failed.append((entry_name(self.trials_of(one.config)), _reason(one.error)))
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
        param_space: dict[str, Any],
        search: Any,
        count: int,
    ) -> list[Any]:
        """One call of Ray Tune, with `count` samples of the space, so many at once; returns its results."""
        from ray import tune

        name = f"tune-{uuid4().hex[:12]}"  # never read again: what stands is in the store
        # It misses the files that are not written (TUNE_DISABLE_AUTO_CALLBACK_LOGGERS).
        logging.getLogger("ray.tune.analysis.experiment_analysis").setLevel(logging.ERROR)
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
                storage_path=str(self.folder.parent),
                verbose=0,
                callbacks=[self._watch()],
            ),
        )
        try:
            grid = tuner.fit()
        finally:
            shutil.rmtree(self.folder.parent / name, ignore_errors=True)
        return [grid[number] for number in range(len(grid))]

    def _scheduler(self) -> Any:
        halving = self.maker.sweep.halving
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

    def _watch(self) -> Any:
        """Keeps the state that is shown, and marks which trials are over."""
        from ray import tune

        state, folder, trials_of, maker = self.state, self.folder, self.trials_of, self.maker

        class Watch(tune.Callback):  # type: ignore[misc]  # Ray has no types
            def on_trial_start(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
                del iteration, trial, info
                state.running = sum(one.status == "RUNNING" for one in trials)

            def on_trial_result(
                self, iteration: int, trials: list[Any], trial: Any, result: dict[str, Any], **info: Any
            ) -> None:
                del iteration, trials, info
                if SCORE not in result:
                    return
                entry = trials_of(trial.config)
                state.tell(entry_name(entry), result["percent"], result[SCORE])
                for rung in (rung for own in entry for rung in maker.rungs_of(own)):
                    if state.live is not None and rung.spec.sft.epochs == result["epochs"]:
                        state.live.tell(rung)

            def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
                del iteration, info
                entry, draw = trials_of(trial.config), ""
                if maker.sweep.search.kind == "optuna":
                    entry, draw = entry[:1], str(trial.trial_id)  # points are counted by their marks
                for own in entry:
                    over = over_file(folder, own, draw)
                    write_text(over, "")
                    push(over)
                state.done += 1
                state.running = sum(one.status == "RUNNING" for one in trials if one is not trial)

            def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
                del iteration, info
                state.failed += 1
                state.running = sum(one.status == "RUNNING" for one in trials if one is not trial)

        return Watch()


def is_lost(error: BaseException) -> bool:
    """Whether a trial ended with its process, its node or a call to a pool, and not by an error of its own."""
    from ray.exceptions import RayActorError, RayTaskError

    if isinstance(error, RayTaskError):
        return isinstance(error.cause, EngineLostError)
    return not (isinstance(error, RayActorError) and error.actor_init_failed)


def _reason(error: BaseException) -> str:
    """The last line of what a trial died of."""
    cause = getattr(error, "cause", None) or error
    return "".join(traceback.format_exception_only(cause)).strip().removeprefix("sftlab.errors.UserError: ")
