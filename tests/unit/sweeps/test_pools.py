"""The pools of a sweep, with training that is over at once: batches, failures, and trials for all engines."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NoReturn

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from safetensors.numpy import save_file

from sftlab.errors import UserError
from sftlab.execution.runtime import Runtime
from sftlab.inference.pool import EnginePool
from sftlab.store.artifact import Store
from sftlab.sweeps import engine_pool, training_pool, usage
from sftlab.sweeps.engine_pool import SweepEnginePool
from sftlab.sweeps.pools import pool_sizes
from sftlab.sweeps.training_pool import TrainingPool
from sftlab.training.records import SFTResult, SFTRun, TrainingEvent
from sftlab.training.spec import SFTSpec, TrainingRuntime

SECONDS = 30  # a call that takes longer hangs


class Trainer:
    """Notes the batches that it is given, and fails at the runs of one name as often as told."""

    def __init__(self, failing: str = "", failures: int = 0) -> None:
        self.batches: list[list[str]] = []
        self.failing, self.failures = failing, failures

    def __call__(
        self,
        runs: Sequence[SFTRun],
        runtime: TrainingRuntime,
        on_progress: Callable[[TrainingEvent], None] | None = None,
        storage_dir: str = "",
    ) -> list[SFTResult]:
        del runtime, storage_dir
        assert on_progress is not None
        self.batches.append([run.run_id for run in runs])
        for run in runs:
            if run.run_id == self.failing and self.failures:
                self.failures -= 1
                raise UserError(f"{run.run_id} cannot be trained.")
            on_progress(TrainingEvent(run.run_id, "finished", 1, 1, 1.0, 1e-5, 1.0))
        return []


@pytest.fixture
def runs(tmp_path: Path) -> list[SFTRun]:
    (tmp_path / "base").mkdir()
    (tmp_path / "base/config.json").write_text("{}")
    save_file({"w": np.zeros(2, np.float32)}, tmp_path / "base/model.safetensors")
    pq.write_table(pa.table({"prompt": ["Who?"], "target": ["Wales"]}), tmp_path / "facts.parquet")
    base, facts = str(tmp_path / "base"), str(tmp_path / "facts.parquet")
    return [SFTRun(f"run{i}", base, facts, str(tmp_path / f"out{i}"), SFTSpec()) for i in range(6)]


def pool_of(trainer: Trainer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> TrainingPool:
    monkeypatch.setattr(training_pool, "GATHER_SECONDS", 0.2)
    return TrainingPool(1, Runtime(), Store(tmp_path / "store"), trainer)


def call_all(pool: TrainingPool, runs: Sequence[SFTRun]) -> dict[str, str]:
    """What each of several calls at once ends with."""
    ends: dict[str, str] = {}

    def call(run: SFTRun) -> None:
        try:
            pool.train(run)
            ends[run.run_id] = "trained"
        except UserError as error:
            ends[run.run_id] = str(error)

    threads = [threading.Thread(target=call, args=(run,), daemon=True) for run in runs]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(SECONDS)
    return ends


def test_runs_that_wait_share_a_worker_group_and_each_is_trained_once(
    runs: list[SFTRun], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer = Trainer()
    monkeypatch.setattr(training_pool, "MOST_RUNS", 4)
    pool = pool_of(trainer, tmp_path, monkeypatch)
    pool.submit(runs)
    assert call_all(pool, [*runs[3:], *runs[3:]]) == dict.fromkeys(("run3", "run4", "run5"), "trained")
    assert [name for batch in trainer.batches for name in batch] == [run.run_id for run in runs]
    use = pool.stats()
    assert (use.done, use.waiting, use.busy) == (6, 0, 0) and use.starts == len(trainer.batches)
    assert 2 <= use.starts <= 3 and max(map(len, trainer.batches)) <= 4


def test_two_groups_share_what_waits(
    runs: list[SFTRun], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(training_pool, "GATHER_SECONDS", 0.2)
    together = threading.Barrier(2)  # the calls of both groups

    class Both(Trainer):
        def __call__(self, *given: Any) -> list[SFTResult]:
            together.wait(SECONDS)
            return super().__call__(*given)

    trainer = Both()
    pool = TrainingPool(2, Runtime(), Store(tmp_path / "store"), trainer)
    pool.submit(runs)
    assert set(call_all(pool, runs).values()) == {"trained"}
    assert sorted(trainer.batches) == [["run0", "run1", "run2"], ["run3", "run4", "run5"]]


def test_a_run_that_fails_is_told_the_others_are_trained_and_it_can_be_asked_for_again(
    runs: list[SFTRun], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pool = pool_of(Trainer("run2", failures=1), tmp_path, monkeypatch)
    ends = call_all(pool, runs)
    assert ends.pop("run2") == "run2 cannot be trained."
    assert set(ends.values()) == {"trained"} and len(ends) == 5
    assert call_all(pool, [runs[2]]) == {"run2": "trained"}


def test_a_run_that_another_sweep_trains_waits_for_it(
    runs: list[SFTRun], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer = Trainer()
    pool = pool_of(trainer, tmp_path, monkeypatch)
    with Store(tmp_path / "store").lock("run-run0"):
        assert call_all(pool, runs[1:3]) == {"run1": "trained", "run2": "trained"}
        pool.submit(runs[:1])
        # Asked for later and trained: the pool has been at the first one, and left it.
        assert call_all(pool, runs[3:4]) == {"run3": "trained"}
        assert all("run0" not in batch for batch in trainer.batches)
    assert call_all(pool, runs[:1]) == {"run0": "trained"}


def test_a_lock_that_cannot_be_had_is_told_and_the_next_runs_are_trained(
    runs: list[SFTRun], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pool = pool_of(Trainer(), tmp_path, monkeypatch)
    with monkeypatch.context() as broken:

        def no_disk(store: Store, name: str) -> NoReturn:
            del store
            raise OSError(28, f"No space left on device: {name}")

        broken.setattr(Store, "try_lock", no_disk)
        for run in runs[:2]:
            with pytest.raises(OSError, match="No space left"):
                pool.train(run)
    assert pool.stats().waiting == 0
    assert call_all(pool, runs[:3]) == dict.fromkeys(("run0", "run1", "run2"), "trained")


class Clock:
    """Stands in for the module `time`: time goes by only where a test says so."""

    def __init__(self) -> None:
        self.now = 100.0

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        del seconds


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    monkeypatch.setattr(engine_pool, "time", made)
    monkeypatch.setattr(training_pool, "time", made)
    monkeypatch.setattr(usage, "time", made)
    return made


class SlowTrainer:
    """Tells these events (run, kind), or raises UserError for None; each takes its seconds."""

    def __init__(self, clock: Clock, events: Sequence[tuple[float, tuple[str, str] | None]]) -> None:
        self.clock, self.events = clock, list(events)

    def __call__(
        self,
        runs: Sequence[SFTRun],
        runtime: TrainingRuntime,
        on_progress: Callable[[TrainingEvent], None] | None = None,
        storage_dir: str = "",
    ) -> list[SFTResult]:
        del runs, runtime, storage_dir
        assert on_progress is not None
        events, self.events = self.events, []
        for seconds, event in events:
            self.clock.now += seconds
            if event is None:
                raise UserError("no")
            on_progress(TrainingEvent(event[0], event[1], 1, 1, 1.0, 1e-5, 1.0))  # type: ignore[arg-type]
        return []


def settled(pool: TrainingPool, runs: Sequence[SFTRun]) -> list[float | str]:
    """Seconds of each run, or what it failed of; the pool trains them in one group."""
    with pool.lock:  # so that all are queued before the first is taken
        for run in runs:
            pool.futures[run.run_id] = Future()
            pool.meter.add(waiting=1)
    pool.take(list(runs))
    found: list[float | str] = []
    for run in runs:
        error = pool.futures[run.run_id].exception(SECONDS)
        found.append(pool.futures[run.run_id].result() if error is None else str(error))
    return found


def test_gpus_that_do_not_come_back_fail_all_that_wait_for_them_at_once(
    tmp_path: Path, runs: list[SFTRun], monkeypatch: pytest.MonkeyPatch
) -> None:
    waits: list[int] = []

    def in_vain(*_: object) -> None:
        waits.append(1)
        raise UserError("The runtime asks for 8 GPUs, but the cluster has 4.")

    monkeypatch.setattr(training_pool, "await_gpus", in_vain)
    trainer = Trainer()
    pool = TrainingPool(0, Runtime(), Store(tmp_path / "store"), trainer, waits=True)
    pool.submit(runs)
    pool.take([pool.queue.get() for _ in runs])
    assert all("asks for 8 GPUs" in str(pool.futures[run.run_id].exception(1)) for run in runs)
    assert waits == [1] and trainer.batches == [] and pool.stats().waiting == 0


def test_the_start_of_a_worker_group_is_no_part_of_its_first_run(
    runs: list[SFTRun], tmp_path: Path, clock: Clock
) -> None:
    events = [(12.0, ("run0", "step")), (2.0, ("run0", "finished")), (3.0, ("run1", "finished"))]
    pool = TrainingPool(0, Runtime(), Store(tmp_path / "store"), SlowTrainer(clock, events))
    assert settled(pool, runs[:2]) == [2.0, 3.0]
    use = pool.stats()
    assert (use.starts, use.start_seconds, use.busy_seconds) == (1, 12.0, 17.0)


def test_runs_that_are_found_start_no_group_and_a_group_that_fails_has_started(
    runs: list[SFTRun], tmp_path: Path, clock: Clock
) -> None:
    found = SlowTrainer(clock, [(1.0, ("run0", "skipped"))])
    pool = TrainingPool(0, Runtime(), Store(tmp_path / "store"), found)
    assert settled(pool, runs[:1]) == [1.0]
    assert (pool.stats().starts, pool.stats().start_seconds) == (0, 0.0)
    found.events = [(1.0, ("run1", "skipped")), (4.0, None)]
    assert settled(pool, runs[1:3]) == [1.0, "no"]
    assert (pool.stats().starts, pool.stats().start_seconds) == (1, 5.0)


def test_the_start_of_an_engine_is_no_part_of_its_first_evaluation(
    clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    starts = [1, 0]

    def start(*_: object) -> int:
        clock.now += 10.0 * starts[0]
        return starts.pop(0)

    monkeypatch.setattr(EnginePool, "start", start)
    monkeypatch.setattr(engine_pool, "evaluate", lambda *_: setattr(clock, "now", clock.now + 3.0))
    pool, request = SweepEnginePool(1, Runtime()), SimpleNamespace(items=[1, 2], base="base")
    answers: Any = request
    assert [pool.evaluate(answers), pool.evaluate(answers)] == [3.0, 3.0]
    use = pool.stats()
    assert use.starts == 1 and use.start_seconds == 10.0 and use.done == 4 and use.busy == use.waiting == 0


def test_an_evaluation_that_fails_leaves_no_engine_busy(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> NoReturn:
        raise UserError("no")

    monkeypatch.setattr(EnginePool, "start", fail)
    pool, request = SweepEnginePool(1, Runtime()), SimpleNamespace(items=[1], base="base")
    answers: Any = request
    for _ in range(2):
        with pytest.raises(UserError, match="no"):
            pool.evaluate(answers)
    assert pool.stats().busy == pool.stats().waiting == pool.stats().done == 0


@pytest.mark.parametrize(
    ("gpus", "given", "expected"), [(0, None, 8), (8, None, 10), (65, None, 82), (65, 4, 4)]
)
def test_there_are_trials_for_all_engines_and_for_those_that_train(
    gpus: int, given: int | None, expected: int
) -> None:
    runtime = Runtime.model_validate(
        {
            "engine": {"gpus_per_engine": 1 if gpus else 0},
            "training": {"gpus_per_worker": 1 if gpus else 0},
            "sweep": {"trials": given},
        }
    )
    sizes = pool_sizes(runtime, {"GPU": float(gpus)})
    assert sizes.trials == expected
    assert given is not None or sizes.trials > sizes.engines


def test_engines_of_a_sweep_may_have_threads_of_their_own() -> None:
    given = {"engine": {"threads": 2}, "sweep": {"engines": 2, "threads": 1}}
    assert SweepEnginePool(2, Runtime.model_validate(given)).pool.runtime.threads == 1
    assert SweepEnginePool(2, Runtime.model_validate({"engine": {"threads": 2}})).pool.runtime.threads == 2
