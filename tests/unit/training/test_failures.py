"""What the end of a worker group tells the user."""

from __future__ import annotations

import errno
import os
import pickle
from pathlib import Path

import pytest
import ray.exceptions
from ray.train.v2._internal.exceptions import WorkerHealthCheckFailedError
from ray.train.v2.api.exceptions import WorkerGroupError

from sftlab.errors import UserError
from sftlab.store.record import Damaged
from sftlab.training.failures import TrainingError, explain, verdict
from sftlab.training.records import SFTRun
from sftlab.training.sft import Mailbox
from sftlab.training.spec import SFTSpec, TrainingRuntime

RUNTIME = TrainingRuntime(workers=2, micro_batch_size=4, zero_stage=1, max_failures=2)
SETTINGS = (
    "micro_batch_size (now 4)",
    "zero_stage (now 1)",
    "gradient_checkpointing=true",
    "offload (now none)",
)


def lost(cause: Exception) -> WorkerGroupError:
    """The failure of rank 1 as Ray Train hands it out where a worker is gone."""
    return WorkerGroupError("rank 1", {1: WorkerHealthCheckFailedError("rank 1 is gone", cause)})


@pytest.fixture
def runs(tmp_path: Path) -> list[SFTRun]:
    return [SFTRun(name, "base", "facts.parquet", str(tmp_path / name), SFTSpec()) for name in ("a", "b")]


@pytest.mark.parametrize(
    "error",
    [
        lost(ray.exceptions.OutOfMemoryError("memory pressure")),
        WorkerGroupError("rank 0", {0: ray.exceptions.OutOfMemoryError("memory pressure")}),
    ],
)
def test_a_worker_that_ray_ends_for_its_memory_names_the_settings(
    error: Exception, runs: list[SFTRun]
) -> None:
    found = explain(error, runs, RUNTIME)
    assert isinstance(found, UserError) and not isinstance(found, TrainingError)
    assert "ran out of memory" in str(found) and all(setting in str(found) for setting in SETTINGS)


def test_a_killed_worker_names_the_settings_as_a_possible_reason(runs: list[SFTRun]) -> None:
    found = explain(lost(ray.exceptions.ActorDiedError()), runs, RUNTIME)
    assert isinstance(found, TrainingError)
    assert "failed 3 times and stopped at run 'a' (2 of 2 are left" in str(found)
    assert "If the machine was out of memory" in str(found) and all(name in str(found) for name in SETTINGS)


def test_other_failures_tell_their_last_line_and_nothing_of_memory(runs: list[SFTRun]) -> None:
    found = explain(WorkerGroupError("rank 0", {0: RuntimeError("File x\nconnection lost\n")}), runs, RUNTIME)
    assert isinstance(found, TrainingError) and str(found).endswith("connection lost")


@pytest.mark.parametrize(
    ("code", "message"), [(errno.ENOSPC, "the disk is full"), (errno.EROFS, "takes no files")]
)
def test_a_store_that_refuses_ray_train_s_own_files_is_the_user_s_to_mend(
    code: int, message: str, runs: list[SFTRun]
) -> None:
    found = explain(RuntimeError(f"pyarrow: {os.strerror(code)}"), runs, RUNTIME)
    assert isinstance(found, UserError) and message in str(found)


def test_damage_that_a_rank_finds_arrives_as_such_so_that_it_is_mended() -> None:
    mailbox, damage = Mailbox(), Damaged(Path("store/tuned/b0"), "model.safetensors has other bytes")
    found = verdict(damage, RUNTIME, 1)
    assert found is not None
    mailbox.settle(found)
    mailbox.settle(UserError("a later one"))
    outcome = pickle.loads(pickle.dumps(mailbox.outcome()))
    assert isinstance(outcome, Damaged) and outcome.folder == damage.folder and str(outcome) == str(damage)
    assert verdict(RuntimeError("connection lost"), RUNTIME, 0) is None
