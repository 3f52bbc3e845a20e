"""The trials of a sweep under Ray Tune: how many at once, which next, and when to stop one early."""

from __future__ import annotations

import json
import math
import shutil
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any
from uuid import uuid4

from sftlab.errors import UserError
from sftlab.store.artifact import write_text
from sftlab.strategies import load_plugins
from sftlab.study.sweep_spec import MODES, Range
from sftlab.study.sweep_trial import Bench, Outcome, StageTime, build_trial
from sftlab.study.sweep_watch import SweepState
from sftlab.study.trials import Trial, TrialMaker, space

SCORE = "score"
RESOURCES = {"CPU": 0.001}  # a trial only waits; what computes belongs to the pools


@dataclass(frozen=True)
class TrialRecord:
    """A finished rung of a trial, as it stands in the sweep's folder."""

    trial: str
    variant: str
    config: Mapping[str, Any]
    percent: float
    score: float
    times: Mapping[str, Mapping[str, float]]


def record_file(folder: Path, trial: Trial) -> Path:
    """Where the record of a trial stands; percentages belong to its identity in a search."""
    key = f"{trial.name}/{','.join(f'{p:g}' for p in trial.spec.restore.percents)}"
    return folder / f"{sha256(key.encode()).hexdigest()[:16]}.json"


def read_records(folder: Path) -> list[TrialRecord]:
    """All records of a sweep, in the order of their file names."""
    return [TrialRecord(**json.loads(path.read_text("utf-8"))) for path in sorted(folder.glob("*.json"))]


def run_listed(
    bench: Bench, trials: Sequence[Trial], maker: TrialMaker, folder: Path, state: SweepState
) -> list[tuple[str, str]]:
    """Run trials that are known beforehand; returns (trial, reason) of those that failed."""
    from ray import tune

    def one(config: dict[str, Any], bench: Bench, trials: Sequence[Trial], maker: TrialMaker) -> None:
        _run(bench, maker.rungs_of(trials[config["trial"]]), config, folder)

    bound = tune.with_parameters(one, bench=bench, trials=list(trials), maker=maker)
    param_space = {"trial": tune.grid_search(list(range(len(trials))))}
    fit = Fit(maker, bench, state, folder, lambda config: trials[config["trial"]])
    return fit(bound, param_space, None, 1)


def run_search(
    bench: Bench, maker: TrialMaker, count: int, folder: Path, state: SweepState
) -> list[tuple[str, str]]:
    """Let Optuna choose `count` further trials; what it has learnt so far stands in its journal file."""
    import optuna
    from optuna.storages import JournalStorage
    from optuna.storages.journal import JournalFileBackend
    from ray import tune
    from ray.tune.search.optuna import OptunaSearch

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    folder.mkdir(parents=True, exist_ok=True)

    def one(config: dict[str, Any], bench: Bench, maker: TrialMaker) -> None:
        _run(bench, maker.rungs_of(maker.trial(maker.point(config))), config, folder)

    bound = tune.with_parameters(one, bench=bench, maker=maker)
    param_space = {name: _domain(domain) for name, domain in space(maker.sweep).items()}
    search = OptunaSearch(
        # A search that goes on must not begin with its first draws again.
        sampler=optuna.samplers.TPESampler(seed=maker.sweep.search.seed + len(read_records(folder))),
        study_name=maker.sweep.name,
        storage=JournalStorage(JournalFileBackend(str(folder.parent / "optuna.journal"))),
    )
    fit = Fit(maker, bench, state, folder, lambda config: maker.trial(maker.point(config)))
    return fit(bound, param_space, search, count)


def _run(bench: Bench, rungs: Sequence[Trial], config: Mapping[str, Any], folder: Path) -> None:
    """One trial in its own process: a rung after the other, each recorded and reported."""
    from ray import tune

    load_plugins(bench.plugins)
    for rung in rungs:
        outcome = build_trial(bench, rung)
        write_record(folder, rung, config, outcome)
        score = outcome.score
        if math.isnan(score):
            raise UserError(f"{rung.name}: {bench.metric} is not a number, as no question was asked for it.")
        found = {SCORE: score, "percent": outcome.percent, "epochs": rung.spec.sft.epochs}
        tune.report(found)


def write_record(folder: Path, trial: Trial, config: Mapping[str, Any], outcome: Outcome) -> None:
    """Keep what a trial found out beside the artifacts that it built: the score, and where its time went."""
    times = {stage: asdict(spent) for stage, spent in outcome.times.items()}
    record = TrialRecord(trial.name, trial.variant, dict(config), outcome.percent, outcome.score, times)
    write_text(record_file(folder, trial), json.dumps(asdict(record), indent=1) + "\n")


def stage_times(record: TrialRecord) -> dict[str, StageTime]:
    return {stage: StageTime(**spent) for stage, spent in record.times.items()}  # type: ignore[arg-type]


def _domain(domain: tuple[Any, ...] | Range) -> Any:
    from ray import tune

    if not isinstance(domain, Range):
        return tune.choice(list(domain))
    draw = tune.loguniform if domain.log else tune.uniform
    return draw(domain.low, domain.high)


@dataclass(frozen=True)
class Fit:
    """One call of Ray Tune, and what it tells while it goes on."""

    maker: TrialMaker
    bench: Bench
    state: SweepState
    folder: Path
    trial_of: Callable[[dict[str, Any]], Trial]

    def __call__(
        self, trainable: Any, param_space: dict[str, Any], search: Any, count: int
    ) -> list[tuple[str, str]]:
        """Run `count` samples of the space; returns (trial, reason) of those that failed."""
        from ray import tune

        name = f"tune-{uuid4().hex[:12]}"  # never read again: what stands is in the store
        tuner = tune.Tuner(
            tune.with_resources(trainable, RESOURCES),
            param_space=param_space,
            tune_config=tune.TuneConfig(
                metric=SCORE,
                mode=MODES[self.maker.sweep.search.metric],
                search_alg=search,
                scheduler=self._scheduler(),
                num_samples=count,
                max_concurrent_trials=self.bench.runtime.sweep.trials,
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
        ended = [grid[number] for number in range(len(grid))]
        return [(self.trial_of(one.config).name, _reason(one.error)) for one in ended if one.error]

    def _scheduler(self) -> Any:
        halving = self.maker.sweep.halving
        if halving is None:
            return None
        from ray.tune.schedulers import ASHAScheduler

        return ASHAScheduler(
            time_attr="epochs",
            grace_period=1,
            max_t=halving.max_epochs,
            reduction_factor=halving.factor,
        )

    def _watch(self) -> Any:
        """Keeps the state that is shown, and marks which trials are over."""
        from ray import tune

        state, folder, trial_of = self.state, self.folder, self.trial_of

        class Watch(tune.Callback):  # type: ignore[misc]  # Ray has no types
            def on_trial_start(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
                del iteration, trial, info
                state.running = sum(one.status == "RUNNING" for one in trials)

            def on_trial_result(
                self, iteration: int, trials: list[Any], trial: Any, result: dict[str, Any], **info: Any
            ) -> None:
                del iteration, trials, info
                if SCORE in result:
                    state.tell(trial_of(trial.config).name, result["percent"], result[SCORE])

            def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
                del iteration, info
                write_text(over_file(folder, trial_of(trial.config)), "")
                state.done += 1
                state.running = sum(one.status == "RUNNING" for one in trials if one is not trial)

            def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
                del iteration, trials, trial, info
                state.failed += 1

        return Watch()


def over_file(folder: Path, trial: Trial) -> Path:
    """Mark of a trial that is over, at its last rung or stopped at an earlier one."""
    return folder.parent / "over" / record_file(folder, trial).stem


def _reason(error: BaseException) -> str:
    """The last line of what a trial died of."""
    cause = getattr(error, "cause", None) or error
    return "".join(traceback.format_exception_only(cause)).strip().removeprefix("sftlab.errors.UserError: ")
