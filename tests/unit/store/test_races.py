"""Kills and pauses between two requests to an object store: what one machine has and the bucket has not."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from urllib.parse import quote

import pytest
import torch

from sftlab.errors import UserError
from sftlab.files import write_text
from sftlab.store.artifact import Store
from sftlab.store.mirror import parse_note, pull, push
from sftlab.store.objects import Objects
from sftlab.store.record import RECORD, Record, Step
from sftlab.training import checkpoints, records
from sftlab.training.checkpoints import latest_checkpoint, save_checkpoint
from sftlab.training.records import History, SFTRun, is_finished, write_result
from sftlab.training.spec import SFTSpec, TrainingRuntime
from tests.support.object_machines import objects_at
from tests.support.refusals import refused
from tests.support.s3_server import S3Server

STEP = Step("s", "slug", {"a": 1})


def two_machines(server: S3Server, folder: Path) -> tuple[Store, Store]:
    address = server.address(folder.name)
    return Store(address, folder / "one"), Store(address, folder / "two")


def test_a_record_that_appears_while_files_are_sent_stands(
    server: S3Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    late, successor = two_machines(server, tmp_path)
    for store in (late, successor):
        for name in ("a.txt", "b.txt"):
            write_text(store.path(STEP) / name, str(tmp_path))
    upload, sent = Objects.upload, list[str]()

    def overtaken(objects: Objects, source: Path, name: str) -> None:
        sent.append(name)
        if len(sent) == 1:
            successor.commit(STEP)
        upload(objects, source, name)

    monkeypatch.setattr("sftlab.store.remote.STREAMS", 1)
    monkeypatch.setattr(Objects, "upload", overtaken)
    assert late.commit(STEP) == successor.find(STEP)
    at = f"s/{STEP.folder}"
    assert sent == [f"{at}/a.txt", f"{at}/a.txt", f"{at}/b.txt"]  # the late one sends nothing more
    assert (late.path(STEP) / RECORD).read_bytes() == (successor.path(STEP) / RECORD).read_bytes()


FACTS, TUNED = Step("training-set", "cell", {}), Step("tuned", "cell", {})
TOLD = "model/training.json"


def run_in(store: Store) -> SFTRun:
    train, output = store.path(FACTS) / "train.parquet", store.path(TUNED) / "model"
    return SFTRun("cell", str(store.root / "model"), str(train), str(output), SFTSpec())


def train(store: Store, seconds: float, weights: str = "weights") -> bytes:
    """What a worker does; returns its training.json."""
    if store.find(FACTS) is None:
        write_text(store.path(FACTS) / "train.parquet", "rows")
        store.commit(FACTS)
    output = Path(run_in(store).output_dir)
    write_text(output / "model.safetensors", weights)
    push(output)
    write_result(run_in(store), TrainingRuntime(), 1, History([0.5], [0.1], 2, 2, seconds))
    return (store.path(TUNED) / TOLD).read_bytes()


def commit(store: Store) -> Record:
    return store.commit(TUNED, varying=[TOLD])


def test_a_run_that_was_committed_on_one_machine_alone_is_sent_when_it_is_found_again(
    server: S3Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, two = two_machines(server, tmp_path)
    with monkeypatch.context() as killed:
        for module in (records, sys.modules[__name__]):
            killed.setattr(module, "push", [].append)
        train(one, 1.0)
    assert not is_finished(run_in(two))
    assert is_finished(run_in(one))
    assert is_finished(run_in(two))
    assert pull(Path(run_in(two).output_dir) / "model.safetensors").read_text() == "weights"


@pytest.mark.parametrize("seconds", [0.8, 2.0625])  # as many bytes as the other's, and more
@pytest.mark.parametrize("between", ["after the note", "before the note", "after the bytes of both"])
def test_of_two_that_train_one_model_the_record_tells_of_the_bytes_that_are_there(
    server: S3Server, tmp_path: Path, between: str, seconds: float
) -> None:
    one, two = two_machines(server, tmp_path)
    driver, reader = (Store(server.address(tmp_path.name), tmp_path / name) for name in ("driver", "reader"))
    mine = train(one, 2.5)
    objects, note = objects_at(one), f"tuned/{TUNED.folder}/work/pushed/{quote(TOLD, safe='')}"
    first = objects.read(note)
    assert first is not None
    others = train(two, seconds)
    assert (len(others) == len(mine)) is (seconds == 0.8)
    if between == "before the note":
        objects.delete(note)
    elif between == "after the bytes of both":
        objects.write(note, first)
    record = commit(driver)
    assert sorted(record.files) == ["model/model.safetensors", TOLD]
    told: list[str] = []
    assert reader.verify(told.append) == 2 and told == []
    assert pull(reader.path(TUNED) / TOLD).read_bytes() == others != mine
    for late in (one, two):  # their drivers come too late, and read what stands
        assert commit(late) == record
        assert pull(late.path(TUNED) / TOLD).read_bytes() == others
    assert not objects.below(f"tuned/{TUNED.folder}/work")


def test_who_trained_a_model_that_another_has_committed_takes_that_one(
    server: S3Server, tmp_path: Path
) -> None:
    one, two = two_machines(server, tmp_path)
    first = train(one, 1.5)
    record = commit(one)
    assert train(two, 2.0625) != first  # nothing is sent
    with pytest.raises(UserError, match="other content"):
        two.commit(TUNED)
    assert commit(two) == record
    assert pull(two.path(TUNED) / TOLD).read_bytes() == first
    told: list[str] = []
    assert Store(server.address(tmp_path.name), tmp_path / "reader").verify(told.append) == 2 and told == []
    three = Store(server.address(tmp_path.name), tmp_path / "three")
    train(three, 1.5, "other weights")
    with pytest.raises(UserError, match="other content"):
        commit(three)


class FakeEngine:
    """What `save_checkpoint` asks of DeepSpeed."""

    module = torch.nn.Linear(1, 1)

    def save_checkpoint(self, folder: str, tag: str, **_: object) -> None:
        write_text(Path(folder) / tag / "rank_0.pt", tag)


def test_checkpoints_that_a_machine_keeps_of_a_run_it_has_left_are_not_believed(
    server: S3Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("torch.distributed.get_rank", lambda: 0)
    monkeypatch.setattr("torch.distributed.barrier", lambda: None)
    store, _ = two_machines(server, tmp_path)
    root, identity = store.root / "checkpoints" / "cell", {"run": "this"}
    save_checkpoint(FakeEngine(), root, 2, History([1.0] * 2, [0.1] * 2), identity)
    with monkeypatch.context() as alone:
        for name in ("push", "drop"):
            alone.setattr(checkpoints, name, [].append)
        save_checkpoint(FakeEngine(), root, 4, History([1.0] * 4, [0.1] * 4), identity)
    assert sorted(path.name for path in root.iterdir()) == ["step-00000002", "step-00000004"]
    found = latest_checkpoint(root, identity)
    assert found is not None and found[0] == "step-00000002"


@pytest.mark.parametrize(
    ("content", "file"),
    [
        (b"[1]", "a"),
        (b"{", "a"),
        (b'{"bytes": "1", "sha256": ""}', "a"),
        (b'{"bytes": 1}', "a"),
        (json.dumps({"bytes": 1, "sha256": "0" * 64}).encode(), "../a"),
    ],
)
def test_a_damaged_note_of_a_sent_file_is_named(content: bytes, file: str) -> None:
    with refused("is no note of a sent file", place="s3://b/note", advice="delete it"):
        parse_note(content, file, "s3://b/note")
    good = {"bytes": 1, "sha256": "0" * 64}
    assert parse_note(json.dumps(good).encode(), "model/a", "") == good
