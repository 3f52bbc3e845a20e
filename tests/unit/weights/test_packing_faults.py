"""A packed model with another base, damage, or an interruption is refused by name and leaves nothing."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from sftlab.errors import UserError
from sftlab.weights import packing
from sftlab.weights.delta_folder import open_packed
from sftlab.weights.ladder import change
from sftlab.weights.packing import pack, unpack
from sftlab.weights.restoration import ModelSource
from sftlab.weights.shards import DELTA_FILE, Checkpoint
from tests.support.full_disk import file_size_limit
from tests.support.packing_models import NORM, UP, llama_pair
from tests.support.weights_models import write_checkpoint


@pytest.fixture
def models(tmp_path: Path) -> tuple[Path, Path]:
    return llama_pair(tmp_path)


def changed_weight(base: Path) -> str:
    file = base / "model.safetensors"
    data = bytearray(file.read_bytes())
    data[-1] ^= 1
    file.write_bytes(data)
    with Checkpoint.open(base) as opened:
        return max(opened.names, key=lambda name: opened.places[name].start)


def test_another_base_model_is_refused_by_the_name_of_the_tensor(
    models: tuple[Path, Path], tmp_path: Path
) -> None:
    base, tuned = models
    packed = tmp_path / "packed"
    pack(base, tuned, packed)
    other = tmp_path / "other"
    shutil.copytree(base, other)
    name = changed_weight(other)
    for read in (
        lambda: unpack(other, packed, tmp_path / "back"),
        lambda: change(other, packed, tmp_path / "change"),
        lambda: dict(ModelSource(str(other), str(packed)).tensors()),
    ):
        with pytest.raises(
            UserError, match=rf"other: {name} is not what .*packed was packed from .*give the base model"
        ):
            read()
    assert not (tmp_path / "back").exists()


@pytest.mark.parametrize(
    "of",
    [{UP: torch.ones(4)}, {NORM: torch.ones(2, 3)}, {NORM: torch.ones(3, 2).half()}],
    ids=["name", "shape", "type"],
)
def test_a_base_model_without_the_tensor_is_refused_when_it_is_opened(
    of: dict[str, torch.Tensor], tmp_path: Path
) -> None:
    base = write_checkpoint(tmp_path / "base", {NORM: torch.ones(3, 2)})
    tuned = write_checkpoint(tmp_path / "tuned", {NORM: torch.rand(3, 2)})
    pack(base, tuned, tmp_path / "packed")
    other = write_checkpoint(tmp_path / "other", of)
    with pytest.raises(UserError, match=rf"other: has no {NORM} of type F32 and shape \[3, 2\].*packed"):
        open_packed(tmp_path / "packed", other)


def test_any_byte_that_is_flipped_or_missing_in_the_records_is_refused_by_name(
    models: tuple[Path, Path], tmp_path: Path
) -> None:
    base, tuned = models
    packed = tmp_path / "packed"
    pack(base, tuned, packed)
    with open_packed(packed, base) as opened:
        file = next(iter(opened.packed_files.values()))
    name, ends = next((name, tensor.ends) for name, tensor in file.tensors.items() if len(tensor.ends) > 1)
    sound = file.data.read_bytes()
    for place in range(ends[0], ends[1], 7):
        damaged = bytearray(sound)
        damaged[place] ^= 0x10
        file.data.write_bytes(damaged)
        with pytest.raises(
            UserError, match=rf"{file.data.name}: the record of {name} from element 0 is damaged"
        ):
            unpack(base, packed, tmp_path / "back")
    for kept in (0, 5, 100, len(sound) - 1):
        file.data.write_bytes(sound[:kept])
        with pytest.raises(UserError, match=file.data.name):
            open_packed(packed, base)
    file.data.unlink()
    with pytest.raises(UserError, match=rf"{file.data.name}: missing"):
        open_packed(packed, base)
    assert not (tmp_path / "back").exists()


def first_tensor(described: dict[str, Any]) -> dict[str, Any]:
    tensors: dict[str, Any] = next(iter(described["files"].values()))["tensors"]
    return next(iter(tensors.values()))  # type: ignore[no-any-return]


@pytest.mark.parametrize(
    ("alter", "says"),
    [
        (lambda d: d.update(format="zip"), "has format 'zip', version 1"),
        (lambda d: d.update(version=2), "version 2; expected 'sftlab.delta', version 1"),
        (lambda d: d.update(files={}), "files are no object with entries"),
        (
            lambda d: d.update(files={"../x.safetensors": {}}),
            "'../x.safetensors' is no name of a safetensors file",
        ),
        (lambda d: d.update(files={"x\0.safetensors": {}}), "is no name of a safetensors file"),
        (
            lambda d: d["files"].update({"y.safetensors": {"sha256": "0" * 64, "tensors": {}}}),
            "y.delta: missing",
        ),
        (lambda d: next(iter(d["files"].values())).update(sha256="0" * 63), "lacks a sha256 or tensors"),
        (lambda d: next(iter(d["files"].values()))["tensors"].popitem(), "is in only one of its header and"),
        (lambda d: first_tensor(d).update(base="x"), "is no SHA-256"),
        (lambda d: first_tensor(d).update(records=[]), "are no list of 1 numbers"),
        (lambda d: first_tensor(d).update(records=[-1]), "has -1 bytes; expected 1 to"),
        (lambda d: first_tensor(d).update(records=[2**40]), "has 1099511627776 bytes; expected 1 to"),
        (
            lambda d: first_tensor(d)["records"].__setitem__(0, first_tensor(d)["records"][0] - 1),
            "bytes where",
        ),
    ],
)
def test_what_the_description_claims_is_checked(
    alter: Callable[[dict[str, Any]], Any], says: str, models: tuple[Path, Path], tmp_path: Path
) -> None:
    base, tuned = models
    pack(base, tuned, tmp_path / "packed")
    file = tmp_path / "packed" / DELTA_FILE
    described = json.loads(file.read_text())
    alter(described)
    file.write_text(json.dumps(described))
    with pytest.raises(UserError, match=says):
        open_packed(tmp_path / "packed", base)


def test_another_hash_of_the_restored_file_is_refused(models: tuple[Path, Path], tmp_path: Path) -> None:
    base, tuned = models
    pack(base, tuned, tmp_path / "packed")
    file = tmp_path / "packed" / DELTA_FILE
    described = json.loads(file.read_text())
    next(iter(described["files"].values()))["sha256"] = "0" * 64
    file.write_text(json.dumps(described))
    with pytest.raises(UserError, match=r"SHA-256 .* 000000000000\.\.\. is recorded"):
        unpack(base, tmp_path / "packed", tmp_path / "back")
    assert not (tmp_path / "back").exists()


def test_what_does_not_restore_gets_no_name(
    models: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(packing, "encode", lambda *_: bytes(5))
    with pytest.raises(UserError, match="checksum"):
        pack(*models, tmp_path / "packed")
    assert {file.name for file in tmp_path.iterdir()} == {"base", "tuned"}


@pytest.mark.parametrize("at", [1, 3])
def test_an_interrupted_call_leaves_nothing(at: int, models: tuple[Path, Path], tmp_path: Path) -> None:
    calls = 0

    def interrupt(_done: int, _total: int) -> None:
        nonlocal calls
        calls += 1
        if calls == at:
            raise KeyboardInterrupt

    pack(*models, tmp_path / "packed")
    for run in (
        lambda: pack(*models, tmp_path / "new", interrupt),
        lambda: unpack(models[0], tmp_path / "packed", tmp_path / "new", interrupt),
    ):
        calls = 0
        with pytest.raises(KeyboardInterrupt):
            run()
        assert {file.name for file in tmp_path.iterdir()} == {"base", "tuned", "packed"}


def test_a_full_disk_is_named_and_leaves_nothing(models: tuple[Path, Path], tmp_path: Path) -> None:
    base, tuned = models
    pack(base, tuned, tmp_path / "packed")
    for run in (
        lambda: pack(base, tuned, tmp_path / "new"),
        lambda: unpack(base, tmp_path / "packed", tmp_path / "new"),
    ):
        with file_size_limit(2000), pytest.raises(UserError, match="cannot be written: File too large"):
            run()
        assert {file.name for file in tmp_path.iterdir()} == {"base", "tuned", "packed"}


def test_what_is_no_pair_of_plain_folders_is_refused(models: tuple[Path, Path], tmp_path: Path) -> None:
    base, tuned = models
    packed, adapter = tmp_path / "packed", tmp_path / "adapter"
    pack(base, tuned, packed)
    adapter.mkdir()
    save_file({"lora_A.weight": torch.ones(2, 2)}, adapter / "adapter_model.safetensors")
    new = tmp_path / "new"
    for run, says in (
        (lambda: pack(base, tuned, packed), "packed: exists already; --output needs a new or empty folder"),
        (lambda: pack(base, tuned, base), "base: exists already"),
        (lambda: unpack(base, packed, tuned), "tuned: exists already"),
        (lambda: pack(base, packed, new), "--tuned .*packed: is a packed model already"),
        (lambda: pack(packed, tuned, new), "--base .*packed: is a packed model already"),
        (lambda: pack(base, adapter, new), "config.json: not found"),
        (lambda: unpack(base, tuned, new), rf"tuned: has no {DELTA_FILE}"),
        (
            lambda: unpack(packed, packed, new),
            "is a packed model, which is read together with its base model",
        ),
        (lambda: Checkpoint.open(packed), "unpack it|sftlab unpack"),
    ):
        with pytest.raises(UserError, match=says):
            run()
    assert not new.exists()
