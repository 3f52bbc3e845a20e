"""Which checkpoint a run goes on from, and which of two calls may write."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

from sftlab.training.checkpoints import (
    call_token,
    checkpoint_root,
    claim,
    drop_checkpoints,
    latest_checkpoint,
    owner,
)
from sftlab.training.records import History


def write_checkpoint(root: Path, step: int, identity: dict[str, str]) -> None:
    folder = root / f"step-{step:08d}"
    folder.mkdir(parents=True)
    history = History([1.0] * step, [0.1] * step, tokens=step)
    state = {"step": step, "identity": identity, "history": asdict(history)}
    (folder / "state.json").write_text(json.dumps(state))


def test_the_newest_committed_checkpoint_of_this_very_run_is_taken(tmp_path: Path) -> None:
    write_checkpoint(tmp_path, 9, {"run": "this"})
    write_checkpoint(tmp_path, 10, {"run": "this"})
    write_checkpoint(tmp_path, 11, {"run": "another"})
    (tmp_path / "step-00000012").mkdir()  # killed before its mark was written
    found = latest_checkpoint(tmp_path, {"run": "this"})
    assert found is not None
    assert found[:2] == ("step-00000010", 10)
    assert found[2] == History([1.0] * 10, [0.1] * 10, tokens=10)


def test_without_a_matching_checkpoint_a_run_begins_anew(tmp_path: Path) -> None:
    assert latest_checkpoint(tmp_path / "none", {"run": "this"}) is None
    write_checkpoint(tmp_path, 3, {"run": "another"})
    assert latest_checkpoint(tmp_path, {"run": "this"}) is None


def test_runs_whose_names_read_alike_have_different_folders() -> None:
    one, other = checkpoint_root("s", "b0/240"), checkpoint_root("s", "b0 240")
    assert one.parent == other.parent == Path("s/checkpoints")
    assert one != other


def test_a_later_call_takes_a_run_over_and_an_earlier_one_cannot_take_it_back(tmp_path: Path) -> None:
    early, late = call_token(), call_token()
    assert early < late
    root = tmp_path / "run"
    assert claim(root, early)
    assert claim(root, early)  # the same call again, after its worker group was restarted
    assert claim(root, late)
    assert not claim(root, early)
    assert owner(root) == late
    drop_checkpoints(root)
    assert owner(root) == ""
