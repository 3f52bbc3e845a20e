"""The trials of a sweep under Ray Tune: how many at once, which next, and when to stop one early."""

from __future__ import annotations

import json
import logging
import math
import shutil
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from hashlib import sha256
from pathlib import Path
from typing import Any
from uuid import uuid4

from sftlab.documents import parse_record
from sftlab.errors import UserError
from sftlab.inference.actors import EngineLostError
from sftlab.store.artifact import write_text
from sftlab.store.mirror import pull, push
from sftlab.strategies import load_plugins
from sftlab.study.sweep_pools import cluster_sizes
from sftlab.study.sweep_spec import Range
from sftlab.study.sweep_trial import Bench, Outcome, StageTime, build_point, mean_outcome
from sftlab.study.sweep_watch import SweepState
from sftlab.study.trials import Trial, TrialMaker, space

SCORE = "score"
RESOURCES = {"CPU": 0.001}  # a trial only waits; what computes belongs to the pools
Config = Mapping[str, Any]
"""A point as Ray Tune hands it to a trial."""
Points = Callable[[Sequence[Config] | None], tuple[dict[str, Any], Any, int]]
"""Parameter space, search algorithm and number of samples: of the given points again, or, without, of all."""


@dataclass(frozen=True)
class TrialRecord:
    """A finished rung of a trial, as it stands in the sweep's folder.

    percent and score: the best mean of its point's seeds; times: its own.
    """

    trial: str
    variant: str
    config: Mapping[str, Any]
    percent: float
    score: float
    times: Mapping[str, StageTime]


def record_file(folder: Path, trial: Trial) -> Path:
    """Where the record of a trial stands; percentages belong to its identity in a search."""
    key = f"{trial.name}/{','.join(f'{p:g}' for p in trial.spec.restore.percents)}"
    return folder / f"{sha256(key.encode()).hexdigest()[:16]}.json"


def read_records(folder: Path) -> list[TrialRecord]:
    """All records of a sweep, in the order of their file names."""
    pull(folder)
    advice = "delete the file; the trial is then looked up again."
    return [
        parse_record(TrialRecord, path.read_bytes(), str(path), advice)
        for path in sorted(folder.glob("*.json"))
    ]


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


def write_record(folder: Path, trial: Trial, config: Mapping[str, Any], outcome: Outcome) -> None:
    """Keep what a trial found out beside the artifacts that it built: its point's score, and where its time went.

    The first record stands: a search that was killed may draw a point again, and then only looks it up.
    """
    file = record_file(folder, trial)
    if pull(file).exists():
        return
    record = TrialRecord(
        trial.name, trial.variant, dict(config), outcome.percent, outcome.score, outcome.times
    )
    write_text(file, json.dumps(asdict(record), indent=1) + "\n")
    push(file)


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


def over_file(folder: Path, trial: Trial, draw: str = "") -> Path:
    """Mark of a trial that is over, at its last rung or stopped at an earlier one.

    draw: tells the draws of a sampler apart, which may come upon one point twice.
    """
    stem = record_file(folder, trial).stem
    return folder.parent / "over" / (f"{stem}-{draw}" if draw else stem)


def entry_name(trials: Sequence[Trial]) -> str:
    """What the trials of an entry are called where they are told of as one."""
    seeds = f" ({len(trials)} seeds)" if len(trials) > 1 else ""
    return f"{trials[0].name}{seeds}"


def trials_over(folder: Path) -> int:
    """How many points of an Optuna search are over; a point leaves a record for each of its seeds and rungs."""
    over = folder.parent / "over"
    pull(over)
    return sum(not mark.name.startswith(".") for mark in over.glob("*"))


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
