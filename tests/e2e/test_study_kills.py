"""A study that is killed at every stage and run again ends in the bits of an undisturbed one."""

from __future__ import annotations

import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.e2e.conftest import Study, kill_when, tail
from tests.e2e.test_study import payloads

pytestmark = [pytest.mark.slow, pytest.mark.rest]


def test_a_run_killed_while_pretraining_scoring_tuning_and_answering_ends_in_the_same_bits(
    finished: Study, tmp_path: Path
) -> None:
    study = Study(tmp_path / "store")

    def some(pattern: str) -> Callable[[], bool]:
        return lambda: any(study.store.glob(pattern))

    moments = {
        "pre-training": some("model/*/model/pretraining.safetensors"),
        "scoring": some("mastery/*/work/blocks/*.parquet"),
        "fine-tuning": some("tuned/*/model/training.json"),
        "answering": some("evaluation/*/answers.parquet"),
    }
    often = [
        *("--set", "runtime.pocket.checkpoint_every=10"),
        *("--set", "runtime.training.checkpoint_every_steps=1"),
    ]
    for name, reached in moments.items():
        how = signal.SIGINT if name == "scoring" else signal.SIGKILL
        kill_when(study.command("run", *often), reached, name, how)
    done = study.call("run", *often)
    assert done.returncode == 0, tail(done)
    mine, others = payloads(study), payloads(finished)
    assert mine.keys() == others.keys()
    assert [key for key in mine if mine[key] != others[key]] == []
