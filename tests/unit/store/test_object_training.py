"""Checkpoints, pieces and results of training in an object store: two machines are two mirrors."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from sftlab.errors import UserError
from sftlab.files import write_text
from sftlab.inference.pieces import commit_table
from sftlab.store.artifact import Store
from sftlab.store.mirror import pull, push
from sftlab.store.record import Step
from sftlab.training.checkpoints import (
    checkpoint_root,
    drop_checkpoints,
    drop_copies,
    fetch_checkpoints,
    is_owned,
    latest_checkpoint,
    save_checkpoint,
    take_over,
)
from sftlab.training.records import History, SFTRun, read_result, write_result
from sftlab.training.spec import SFTSpec, TrainingRuntime
from tests.support.object_machines import Machines, objects_of


class FakeEngine:
    """What `checkpoints` asks of DeepSpeed: a file for each rank in the folder of a tag."""

    module = torch.nn.Linear(1, 1)

    def __init__(self, state: str) -> None:
        self.state = state

    def save_checkpoint(self, folder: str, tag: str, **_: object) -> None:
        write_text(Path(folder) / tag / "rank_0.pt", self.state)


def test_checkpoints_of_a_run_travel_and_are_deleted_with_it(
    machines: Machines, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("torch.distributed.get_rank", lambda: 0)
    monkeypatch.setattr("torch.distributed.barrier", lambda: None)
    monkeypatch.setattr("sftlab.training.checkpoints.OWNER_SECONDS", 0.0)
    one, two = (checkpoint_root(str(store.root / "ray-train"), "cell") for store in (machines(), machines()))
    identity = {"run_id": "cell"}
    fetch_checkpoints(one)
    assert latest_checkpoint(one, identity) is None
    take_over(one, "first")
    for step in (2, 4):
        save_checkpoint(FakeEngine(f"after {step}"), one, step, History([1.0] * step, [0.1] * step), identity)
    write_text(one / "step-00000006" / "rank_0.pt", "without a mark")
    push(one / "step-00000006")
    shutil.rmtree(one)

    fetch_checkpoints(two)
    found = latest_checkpoint(two, identity)
    assert found is not None and found[:2] == ("step-00000004", 4) and found[2].losses == [1.0] * 4
    assert (two / found[0] / "rank_0.pt").read_text() == "after 4"
    assert is_owned(one, "first") and not is_owned(one, "second")
    take_over(two, "second")
    assert is_owned(two, "second") and not is_owned(one, "first")
    drop_checkpoints(two)
    drop_copies(one)
    assert not one.exists() and not two.exists()
    assert not objects_of(machines())


def test_pieces_are_sent_by_those_who_write_them_and_belong_to_the_run_on_every_machine(
    machines: Machines,
) -> None:
    facts, folder = Step("training-set", "cell", {}), Step("tuned", "cell", {})
    one, two = machines(), machines()
    block = one.work(folder) / "blocks" / "00000.parquet"
    commit_table(pa.table({"question": ["q"], "object": ["o"]}), block)
    assert pq.read_table(pull(two.root / block.relative_to(one.root))).num_rows == 1
    commit_table(pa.table({"question": ["q"], "object": ["o"]}), one.path(facts) / "train.parquet")
    one.commit(facts)

    def run(store: Store) -> SFTRun:
        base = str(store.path(Step("model", "m", {})) / "model")
        train = str(store.path(facts) / "train.parquet")
        return SFTRun("cell", base, train, str(store.path(folder) / "model"), SFTSpec())

    assert read_result(run(two)) is None
    write_result(
        run(one), TrainingRuntime(), 1, History([0.5], [0.1], tokens=2, answer_tokens=1, seconds=1.0)
    )
    found = read_result(run(two))
    assert found is not None and found.losses == [0.5]
    other = replace(run(machines()), base_model="/another/model")
    with pytest.raises(UserError, match="is the result of another run; base_model differ"):
        read_result(other)
