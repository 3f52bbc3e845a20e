"""Two calls on one output: one writes, the others are refused, and what a killed call left is removed."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier

import pytest
import torch

from sftlab.errors import UserError
from sftlab.files import claimed, new_output
from sftlab.weights.packing import pack, unpack
from sftlab.weights.restoration import write_model
from tests.support.refusals import refused
from tests.support.weights_models import write_checkpoint

Write = Callable[[Path, Path], object]
WRITERS: dict[str, Write] = {
    "pack": lambda models, output: pack(models / "base", models / "base", output),
    "unpack": lambda models, output: unpack(models / "base", models / "packed", output),
    "materialize": lambda models, output: write_model(models / "base", models / "base", None, output),
}


@pytest.fixture
def writable(tmp_path: Path) -> Path:
    base = write_checkpoint(tmp_path / "base", {"model.layers.0.mlp.up_proj.weight": torch.ones(4)})
    pack(base, base, tmp_path / "packed")
    return tmp_path


@pytest.mark.parametrize("name", WRITERS)
def test_a_second_writer_is_refused_and_what_a_killed_one_left_is_removed(name: str, writable: Path) -> None:
    output = writable / "out"
    for other in ("out", "link/../out"):
        (writable / "link").mkdir(exist_ok=True)
        with new_output(writable / other, lambda _: None) as made:
            with refused("another call writes there", place="out"):
                WRITERS[name](writable, output)
            made.mkdir()
        assert output.is_dir() and not any(output.iterdir())
        output.rmdir()
    rest = writable / ".out.part" / "new" / "restored-model"
    rest.mkdir(parents=True)
    (rest / "left.safetensors").touch()
    WRITERS[name](writable, output)
    assert {file.name for file in writable.iterdir()} == {"base", "packed", "link", "out"}
    assert not list(output.rglob("left*"))
    with refused("exists already", place="out"):
        WRITERS[name](writable, output)


@pytest.mark.parametrize("name", WRITERS)
def test_of_many_writers_at_one_moment_one_writes(name: str, writable: Path) -> None:
    start = Barrier(6)

    def call(_: int) -> str:
        start.wait()
        try:
            WRITERS[name](writable, writable / "out")
        except UserError as error:
            assert error.problem in ("exists already", "another call writes there at this moment")
            return "refused"
        return "written"

    with ThreadPoolExecutor(6) as threads:
        assert sorted(threads.map(call, range(6))) == ["refused"] * 5 + ["written"]
    WRITERS[name](writable, writable / "alone")
    one, other = (
        {file.name: file.read_bytes() for file in (writable / place).iterdir()} for place in ("out", "alone")
    )
    assert one == other
    assert {file.name for file in writable.iterdir()} == {"base", "packed", "out", "alone"}


def test_a_folder_that_was_renamed_before_it_was_locked_is_not_claimed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The call that held it ends between the two steps of another one."""
    folder = tmp_path / "out"
    opened = os.open

    def late(path: Path, flags: int) -> int:
        held = opened(path, flags)
        folder.rename(tmp_path / "done")
        folder.mkdir()
        return held

    monkeypatch.setattr("sftlab.files.os.open", late)
    with refused("another call writes there", place="out"), claimed(folder):
        pytest.fail("claimed")
    assert {file.name for file in tmp_path.iterdir()} == {"done", "out"}


def test_a_refused_call_leaves_the_folder_that_it_made_to_the_call_that_holds_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The other call locks the folder between the two steps of this one."""
    folder = tmp_path / "out"
    opened, others = os.open, []

    def late(path: Path, flags: int) -> int:
        others.append(opened(path, flags))
        fcntl.flock(others[0], fcntl.LOCK_EX)
        return opened(path, flags)

    monkeypatch.setattr("sftlab.files.os.open", late)
    with refused("another call writes there", place="out"), claimed(folder):
        pytest.fail("claimed")
    assert folder.is_dir()
    os.close(others[0])
