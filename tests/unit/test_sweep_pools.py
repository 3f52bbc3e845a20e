"""The pools of a sweep, with training that is over at once: batches, failures, and trials for all engines."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NoReturn

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from safetensors.numpy import save_file

from sftlab.errors import UserError
from sftlab.store.artifact import Store
from sftlab.study import sweep_pools
from sftlab.study.runtime import Runtime
from sftlab.study.sweep_pools import TrainingPool, pool_sizes
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
    pq.write_table(pa.table({"question": ["Who?"], "object": ["Wales"]}), tmp_path / "facts.parquet")
    base, facts = str(tmp_path / "base"), str(tmp_path / "facts.parquet")
    return [SFTRun(f"run{i}", base, facts, str(tmp_path / f"out{i}"), SFTSpec()) for i in range(6)]


def pool_of(trainer: Trainer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> TrainingPool:
    monkeypatch.setattr(sweep_pools, "GATHER_SECONDS", 0.2)
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
    monkeypatch.setattr(sweep_pools, "MOST_RUNS", 4)
    pool = pool_of(trainer, tmp_path, monkeypatch)
    pool.submit(runs)
    assert call_all(pool, [*runs[3:], *runs[3:]]) == dict.fromkeys(("run3", "run4", "run5"), "trained")
    assert [name for batch in trainer.batches for name in batch] == [run.run_id for run in runs]
    use = pool.stats()
    assert (use.done, use.waiting, use.busy) == (6, 0, 0) and use.starts == len(trainer.batches)
    assert 2 <= use.starts <= 3 and max(map(len, trainer.batches)) <= 4


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
        time.sleep(0.5)  # in which it would be begun
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
