"""Which checkpoint a run goes on from, and which of two calls may write."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import pytest

from sftlab.store.mirror import HASH_LIMIT
from sftlab.training.checkpoints import (
    State,
    call_token,
    checkpoint_root,
    drop_checkpoints,
    is_owned,
    latest_checkpoint,
    shards,
    take_over,
)
from sftlab.training.records import History


def write_checkpoint(root: Path, step: int, identity: dict[str, str]) -> None:
    folder = root / f"step-{step:08d}"
    folder.mkdir(parents=True)
    history = History([1.0] * step, [0.1] * step, tokens=step)
    for rank in range(2):
        (folder / f"rank_{rank}.pt").write_bytes(bytes([step, rank]) * 1000)
    state = State(step, identity, history, shards(folder))
    (folder / "state.json").write_text(json.dumps(asdict(state)))


def test_the_newest_committed_checkpoint_of_this_very_run_is_taken(tmp_path: Path) -> None:
    write_checkpoint(tmp_path, 9, {"run": "this"})
    write_checkpoint(tmp_path, 10, {"run": "this"})
    write_checkpoint(tmp_path, 11, {"run": "another"})
    (tmp_path / "step-00000012").mkdir()  # killed before its mark was written
    found = latest_checkpoint(tmp_path, {"run": "this"})
    assert found is not None
    assert found[:2] == ("step-00000010", 10)
    assert found[2] == History([1.0] * 10, [0.1] * 10, tokens=10)


def cut_off(data: bytes) -> bytes:
    return data[:-1]


def flip_a_bit(data: bytes) -> bytes:
    return data[:700] + bytes([data[700] ^ 1]) + data[701:]


@pytest.mark.parametrize("damage", [cut_off, flip_a_bit])
def test_a_checkpoint_with_a_damaged_file_counts_as_never_written(
    tmp_path: Path, damage: Callable[[bytes], bytes]
) -> None:
    write_checkpoint(tmp_path, 9, {"run": "this"})
    write_checkpoint(tmp_path, 10, {"run": "this"})
    for step, left in ((10, ("step-00000009", 9)), (9, None)):
        file = tmp_path / f"step-{step:08d}" / "rank_1.pt"
        file.write_bytes(damage(file.read_bytes()))
        found = latest_checkpoint(tmp_path, {"run": "this"})
        assert (found and found[:2]) == left


@pytest.mark.parametrize(("before", "after"), [("0", "1"), ("1", "0")])
def test_a_checkpoint_is_found_though_the_size_up_to_which_files_are_hashed_has_changed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, before: str, after: str
) -> None:
    monkeypatch.setenv(HASH_LIMIT, before)
    write_checkpoint(tmp_path, 10, {"run": "this"})
    monkeypatch.setenv(HASH_LIMIT, after)
    assert latest_checkpoint(tmp_path, {"run": "this"}) is not None
    file = tmp_path / "step-00000010" / "rank_1.pt"
    file.write_bytes(file.read_bytes()[:-1])
    assert latest_checkpoint(tmp_path, {"run": "this"}) is None


def test_a_checkpoint_that_lacks_a_file_counts_as_never_written(tmp_path: Path) -> None:
    write_checkpoint(tmp_path, 10, {"run": "this"})
    (tmp_path / "step-00000010" / "rank_1.pt").unlink()
    assert latest_checkpoint(tmp_path, {"run": "this"}) is None


def test_without_a_matching_checkpoint_a_run_begins_anew(tmp_path: Path) -> None:
    assert latest_checkpoint(tmp_path / "none", {"run": "this"}) is None
    write_checkpoint(tmp_path, 3, {"run": "another"})
    assert latest_checkpoint(tmp_path, {"run": "this"}) is None


def test_runs_whose_names_read_alike_have_different_folders() -> None:
    one, other = checkpoint_root("s", "b0/240"), checkpoint_root("s", "b0 240")
    assert one.parent == other.parent == Path("s/checkpoints")
    assert one != other


def test_the_call_that_began_last_has_a_run_whatever_the_clocks_say(tmp_path: Path) -> None:
    early, late = call_token(), call_token()
    root = tmp_path / "run"
    assert is_owned(root, early)  # a mount that does not show the file yet
    take_over(root, early)
    assert is_owned(root, early) and not is_owned(root, late)
    take_over(root, late)
    assert is_owned(root, late) and not is_owned(root, early)
    drop_checkpoints(root)
    assert is_owned(root, late)
