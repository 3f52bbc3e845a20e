"""Trials under a real Ray Tune: ASHA stops those that fall behind, and lost ones run again, but no others."""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import ray
import yaml

from sftlab.errors import UserError
from sftlab.execution.progress import SilentProgress
from sftlab.execution.runtime import Runtime
from sftlab.store.artifact import Store
from sftlab.strategies import load_plugins
from sftlab.studies.knowledge.sources import resolve
from sftlab.studies.knowledge.sweep.sweep import Sweep, finished_trials, is_finished
from sftlab.studies.knowledge.sweep.trials import Trial
from sftlab.studies.load import load_sweep
from sftlab.sweeps.live import LiveTracking
from sftlab.sweeps.outcome import Outcome
from sftlab.sweeps.progress import SweepState
from sftlab.sweeps.records import points_done, read_records, write_record
from sftlab.sweeps.search import HalvingSpec
from sftlab.sweeps.searches import SCORE, search_of
from sftlab.sweeps.trial import Config, TrialContext
from sftlab.sweeps.tune import TuneRunner
from tests.support.toy_sweep import Toy, ToySearch, ToyTrials

pytestmark = pytest.mark.slow
ROOT = Path(__file__).parents[2]
TINY = ROOT / "jobs" / "configs" / "tiny.yaml"


@pytest.fixture(scope="module")
def local_ray() -> Iterator[None]:
    # Trials unpickle classes of this module and of tests.support.
    paths = [ROOT, Path(__file__).parent, *filter(None, [os.environ.get("PYTHONPATH")])]
    here = {"env_vars": {"PYTHONPATH": os.pathsep.join(map(str, paths))}}
    ray.init(address="local", num_cpus=2, include_dashboard=False, log_to_driver=False, runtime_env=here)
    yield
    ray.shutdown()


def sweep_of(tmp_path: Path, **fields: object) -> Sweep:
    document = {"name": "s", "study": str(TINY), **fields}
    path = tmp_path / "sweep.yaml"
    path.write_text(yaml.safe_dump(document))
    spec, study = load_sweep(path)
    store = Store(tmp_path / "store")
    # One after another: ASHA's verdicts are certain.
    runtime = Runtime.model_validate({"sweep": {"trials": 1, "max_failures": 1}})
    return Sweep(spec, study, resolve(study, store.root), store, runtime, SilentProgress())


class Heard(LiveTracking[Trial]):
    """A tracker that only listens."""

    def __init__(self) -> None:
        super().__init__(lambda _: None, lambda _: None)
        self.trials: list[Trial] = []

    def add(self, trial: Trial) -> None:
        self.trials.append(trial)


def runner_of(sweep: Sweep, state: SweepState) -> TuneRunner[Trial]:
    return TuneRunner(sweep.search, TrialContext(sweep.store, sweep.runtime, "none", "dev"), state)


def test_asha_stops_the_trial_that_falls_behind_at_its_rung_also_where_its_process_was_killed(
    tmp_path: Path, local_ray: None
) -> None:
    del local_ray
    axes = {"data": [0, 1, 2], "size": [4], "seed": [0], "percent": [0, 10]}
    sweep = sweep_of(tmp_path, axes=axes, search={"metric": "dev"}, halving={"max_epochs": 4, "factor": 2})
    trials, maker, folder = list(sweep.listed()), sweep.maker, sweep.records
    # Dev scores by data and epochs: the second never catches up, the third does so for one rung.
    scores = {0: [0.5, 0.6, 0.7], 1: [0.1, 0.9, 0.9], 2: [0.6, 0.2, 0.9]}
    killed = tmp_path / "killed"

    def one(config: dict[str, Any]) -> None:
        from ray import tune

        trial = trials[config["trial"]]
        if trial.data == 1 and not killed.exists():
            killed.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        for rung, score in zip(maker.rungs_of(trial), scores[int(trial.data)], strict=True):
            write_record(folder, rung, config, Outcome({10.0: score}, 10.0, score))
            tune.report({SCORE: score, "percent": 10.0, "epochs": rung.spec.sft.epochs})

    heard = Heard()
    state = SweepState(total=3, found=0, metric="dev", live=heard)
    points = sweep.search.points(list(sweep.search.entries()))
    assert runner_of(sweep, state).run_trainable(one, points) == []

    went = [(trial.data, trial.spec.sft.epochs) for trial in heard.trials]
    assert went == [
        (0, 1),
        (0, 2),
        (0, 4),
        (2, 1),
        (2, 2),
        (1, 1),
    ]  # the killed one is judged by all before it
    assert {(rung.data, rung.spec.sft.epochs) for rung in finished_trials(sweep, trials)} == set(went)
    assert all(is_finished(sweep, trial) for trial in trials)
    assert (state.done, state.failed, state.running, state.lost) == (3, 0, 0, 1)
    assert "1 lost with their process or node and tried again" in state.line({})
    assert state.best is not None and state.best[0] == trials[0].name and state.best[2] == 0.7
    assert not list(folder.parent.glob("tune-*"))  # Tune's own folder is gone


def test_lost_points_of_a_search_run_again_a_bounded_number_of_times_and_those_with_errors_of_their_own_do_not(
    tmp_path: Path, local_ray: None
) -> None:
    """Of three points the first loses its process once, the second fails by itself, the third always loses it."""
    del local_ray
    axes = {"data": [0, 1], "size": [4], "seed": [0], "percent": {"low": 0.0, "high": 60.0}}
    sweep = sweep_of(tmp_path, axes=axes, search={"kind": "optuna", "trials": 3, "metric": "dev"})
    began = tmp_path / "began.jsonl"
    began.touch()

    def one(config: dict[str, Any]) -> None:
        from ray import tune

        before = list(map(json.loads, began.read_text().splitlines()))
        with began.open("a") as stream:
            stream.write(json.dumps(config) + "\n")
        if len(before) == 1:
            raise UserError("its own fault")
        if len(before) != 3:
            os.kill(os.getpid(), signal.SIGKILL)
        tune.report({SCORE: 0.5, "percent": 10.0, "epochs": 1})

    state = SweepState(total=3, found=0, metric="dev")
    points = sweep.search.points(())
    failed = runner_of(sweep, state).run_trainable(one, points)

    first, second, third, *again = map(json.loads, began.read_text().splitlines())
    assert again == [first, third] and len({point["percent"] for point in (first, second, third)}) == 3
    assert [name for name, _ in failed] == [points.trials_of(point)[0].name for point in (second, third)]
    assert failed[0][1] == "its own fault" and "actor" in failed[1][1]  # died, or is unavailable
    assert (state.done, state.failed, state.lost) == (1, 2, 2)
    assert points_done(sweep.records) == 1


PLUGIN = "tabnanny"  # a module of the standard library that nothing else imports


class PluggedTrials(ToyTrials):
    """Toy trials whose points need a plugin, as those with a custom strategy do."""

    def trials_of(self, config: Config) -> Sequence[Toy]:
        assert PLUGIN in sys.modules
        return super().trials_of(config)


def test_the_trials_of_another_study_run_with_its_plugins_and_are_recorded_with_the_mean_of_their_seeds(
    tmp_path: Path, local_ray: None
) -> None:
    del local_ray
    load_plugins([PLUGIN])
    spec, halving = ToySearch(kind="optuna", trials=2, metric="total"), HalvingSpec(max_epochs=2)
    search = search_of(PluggedTrials(halving.rungs), spec, halving, "toy", tmp_path / "toy" / "trials")
    runtime = Runtime.model_validate({"sweep": {"trials": 1, "max_failures": 0}})
    context = TrialContext(Store(tmp_path / "store"), runtime, "none", "total", (PLUGIN,))
    points = search.points(())
    assert points.count == 2
    assert TuneRunner(search, context, SweepState(2, 0, "total")).run(points) == []
    records = read_records(search.records)
    for record in records:
        assert record.score == pytest.approx((record.config["left"] + record.config["right"] + 0.5) / 100)
    assert {record.variant for record in records} >= {"epochs=1"}
    assert {toy.name for toy in search.finished([])} == {record.trial for record in records}
    assert points_done(search.records) == 2 and search.points(()).count == 0
