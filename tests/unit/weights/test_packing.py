"""Packed folders: the same bytes come back, other base models and damage are refused by name."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from typer.testing import CliRunner

from sftlab.cli.app import app
from sftlab.errors import UserError
from sftlab.weights import packing
from sftlab.weights.bits import raw_type
from sftlab.weights.delta import DELTA_CHUNK
from sftlab.weights.delta_folder import open_packed, open_tuned
from sftlab.weights.edits import Interpolation
from sftlab.weights.ladder import change, restore
from sftlab.weights.packing import pack, unpack
from sftlab.weights.restore import ModelSource, write_restored
from sftlab.weights.shards import DELTA_FILE, Checkpoint
from sftlab.weights.stream import in_order
from tests.support.full_disk import file_size_limit
from tests.support.weights_models import save_model, save_tuned, write_checkpoint

DTYPES = (torch.bfloat16, torch.float16, torch.float32)
UP, NORM, IDS = "model.layers.0.mlp.up_proj.weight", "model.norm.weight", "position_ids"


def content(folder: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in folder.iterdir()}


def small_pair(folder: Path) -> tuple[Path, Path]:
    """Two tensors of each type, an integer tensor, and tensors that one of both lacks or has in another form."""
    draw = torch.Generator().manual_seed(0)
    base: dict[str, torch.Tensor] = {IDS: torch.arange(9)}
    for dtype in DTYPES:
        base |= {
            f"a.{dtype}": torch.randn(7, 13, generator=draw).to(dtype),
            f"b.{dtype}": torch.ones(5).to(dtype),
        }
    tuned = {
        name: tensor + (0.01 * torch.randn(tensor.shape, generator=draw)).to(tensor.dtype)
        if name.startswith("a.")
        else tensor.clone()
        for name, tensor in base.items()
    }
    base |= {"gone": torch.ones(3), "resized": torch.ones(4, 2), "cast": torch.ones(6)}
    tuned |= {"new": torch.rand(3), "resized": torch.rand(5, 2), "cast": torch.rand(6).bfloat16()}
    tuned |= {"scalar": torch.tensor(2.5), "empty": torch.empty(0, 4), "one": torch.tensor([True])}
    base |= {"scalar": torch.tensor(1.5), "empty": torch.empty(0, 4), "one": torch.tensor([False])}
    return write_checkpoint(folder / "base", base), write_checkpoint(folder / "tuned", tuned, shards=3)


@pytest.fixture
def models(tmp_path: Path) -> tuple[Path, Path]:
    """A small Llama and one tuned from it, in bfloat16."""
    base, tuned = tmp_path / "base", tmp_path / "tuned"
    save_model(base, "llama", seed=0)
    save_tuned(tuned, base, scale=1e-3, max_shard_size="4KB")
    return base, tuned


def test_every_file_comes_back_byte_for_byte(tmp_path: Path) -> None:
    base, tuned = small_pair(tmp_path)
    (tuned / "README.md").write_text("a card")
    (tuned / "training_args.bin").write_bytes(b"pickle")
    found = pack(base, tuned, tmp_path / "packed")
    assert unpack(base, tmp_path / "packed", tmp_path / "back") == sum(
        file.stat().st_size for file in tuned.glob("*.safetensors")
    )
    original = content(tuned)
    del original["README.md"], original["training_args.bin"]
    assert content(tmp_path / "back") == original
    assert found.left_out == ("README.md", "training_args.bin")
    assert sorted(found.whole) == ["cast", "new", "resized"]
    assert found.restored_bytes == sum(map(len, original.values()))
    assert found.packed_bytes == sum(map(len, content(tmp_path / "packed").values()))
    assert {file.name for file in tmp_path.iterdir()} == {"base", "tuned", "packed", "back"}


@pytest.mark.parametrize("dtype", DTYPES)
def test_weights_that_are_no_numbers_come_back(dtype: torch.dtype, tmp_path: Path) -> None:
    width = torch.empty(0, dtype=dtype).element_size()
    bits = np.random.default_rng(0).integers(0, 256, (2, 4000 * width), np.uint8)
    models = [
        write_checkpoint(tmp_path / name, {UP: torch.from_numpy(row.copy()).view(dtype)})
        for name, row in zip(("base", "tuned"), bits, strict=True)
    ]
    pack(*models, tmp_path / "packed")
    unpack(models[0], tmp_path / "packed", tmp_path / "back")
    assert content(tmp_path / "back") == content(models[1])


def test_header_and_metadata_of_other_writers_come_back(tmp_path: Path) -> None:
    base = write_checkpoint(tmp_path / "base", {"a": torch.ones(3), "b": torch.ones(2)})
    tuned = write_checkpoint(tmp_path / "tuned", {"a": torch.ones(3)})
    header = b'{ "b":{"dtype":"F32","shape":[2],"data_offsets":[12,20]}, "__metadata__":{"by":"hand"},'
    header += b'"a":{"data_offsets":[0,12],"shape":[3],"dtype":"F32"}}   '
    weights = np.arange(5, dtype=np.float32).tobytes()
    (tuned / "model.safetensors").write_bytes(len(header).to_bytes(8, "little") + header + weights)
    pack(base, tuned, tmp_path / "packed")
    unpack(base, tmp_path / "packed", tmp_path / "back")
    assert content(tmp_path / "back") == content(tuned)


def test_the_hash_of_the_restored_files_and_of_the_base_tensors_is_recorded(
    models: tuple[Path, Path], tmp_path: Path
) -> None:
    base, tuned = models
    pack(base, tuned, tmp_path / "packed")
    described = json.loads((tmp_path / "packed" / DELTA_FILE).read_text())
    assert {name: entry["sha256"] for name, entry in described["files"].items()} == {
        file.name: sha256(file.read_bytes()).hexdigest() for file in tuned.glob("*.safetensors")
    }
    with Checkpoint.open(base) as opened:
        for entry in described["files"].values():
            for name, tensor in entry["tensors"].items():
                bits = opened.read(name).view(torch.uint8).numpy().tobytes()
                assert tensor["base"] == sha256(bits).hexdigest()


@pytest.mark.parametrize("size", [DELTA_CHUNK - 1, DELTA_CHUNK, DELTA_CHUNK + 1, 2 * DELTA_CHUNK + 5])
def test_stretches_of_tensors_longer_than_a_record(size: int, tmp_path: Path) -> None:
    draw = torch.Generator().manual_seed(0)
    old = torch.randn(size, generator=draw).bfloat16()
    new = old + (0.001 * torch.randn(size, generator=draw)).bfloat16()
    base = write_checkpoint(tmp_path / "base", {UP: old})
    tuned = write_checkpoint(tmp_path / "tuned", {UP: new})
    pack(base, tuned, tmp_path / "packed")
    bits = new.view(torch.int16).numpy().view(np.uint16)
    borders = (0, 1, DELTA_CHUNK - 1, DELTA_CHUNK, DELTA_CHUNK + 1, 2 * DELTA_CHUNK, size - 1, size)
    with open_tuned(tmp_path / "packed", base) as packed:
        assert torch.equal(packed.read(UP), new)
        for start in borders:
            for stop in (stop for stop in borders if start <= stop <= size):
                out = np.empty(stop - start, np.uint16)
                packed.read_into(UP, start, out)
                assert np.array_equal(out, bits[start:stop]), (start, stop)
    unpack(base, tmp_path / "packed", tmp_path / "back")
    assert content(tmp_path / "back") == content(tuned)


def test_a_packed_model_is_read_as_the_folder_that_it_was(tmp_path: Path) -> None:
    base, tuned = small_pair(tmp_path)
    pack(base, tuned, tmp_path / "packed")
    with Checkpoint.open(tuned) as plain, open_tuned(tmp_path / "packed", base) as packed:
        assert packed.names == plain.names and packed.nbytes == plain.nbytes
        assert packed.config == plain.config
        for name in plain.names:
            assert (packed.code(name), packed.shape(name)) == (plain.code(name), plain.shape(name))
            one, other = (np.empty(plain.numel(name), raw_type(plain.code(name))) for _ in range(2))
            plain.read_into(name, 0, one)
            packed.read_into(name, 0, other)
            assert one.tobytes() == other.tobytes()


def test_change_and_restore_give_the_same_results_as_from_the_plain_folder(
    models: tuple[Path, Path], tmp_path: Path
) -> None:
    base, tuned = models
    packed = tmp_path / "packed"
    pack(base, tuned, packed)
    for folder, of in ((tmp_path / "plain", tuned), (tmp_path / "delta", packed)):
        change(base, of, folder / "change")
        found = restore(base, of, "0,10,100", folder / "ladder", order="random")
        edits = {"1": Interpolation(30.0), "2": None}
        write_restored(base, of, edits, folder / "edited")
    for name in (
        "change",
        "ladder",
        "ladder/restored-10",
        "ladder/restored-100",
        "edited/restored-1",
        "edited/restored-2",
    ):
        plain, delta = tmp_path / "plain" / name, tmp_path / "delta" / name
        files = {file.name for file in plain.iterdir() if file.is_file()}
        assert files and {file.name for file in delta.iterdir() if file.is_file()} == files
        for file in files:
            assert (delta / file).read_bytes() == (plain / file).read_bytes(), file
    assert found.changed > 0


def test_a_packed_model_streams_into_an_engine_as_the_plain_one(
    models: tuple[Path, Path], tmp_path: Path
) -> None:
    base, tuned = models
    packed = tmp_path / "packed"
    pack(base, tuned, packed)
    for edit in (None, Interpolation(50.0)):
        plain = dict(ModelSource(str(base), str(tuned), edit).tensors())
        delta = dict(ModelSource(str(base), str(packed), edit).tensors())
        assert plain.keys() == delta.keys()
        assert all(torch.equal(plain[name], delta[name]) for name in plain)
    assert dict(ModelSource(str(base)).tensors()).keys() == plain.keys()


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


def test_progress_ends_at_its_total(models: tuple[Path, Path], tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []
    pack(*models, tmp_path / "packed", lambda done, total: seen.append((done, total)))
    assert seen[-1][0] == seen[-1][1] > 0 and sorted(seen) == seen
    seen.clear()
    unpack(models[0], tmp_path / "packed", tmp_path / "back", lambda done, total: seen.append((done, total)))
    assert seen[-1][0] == seen[-1][1] > 0


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
        (lambda: pack(base, adapter, new), "is an adapter, which is a small difference"),
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


def test_a_tensor_that_two_shards_hold_comes_back_in_both(tmp_path: Path) -> None:
    base = write_checkpoint(tmp_path / "base", {UP: torch.ones(4), NORM: torch.ones(2)})
    tuned = write_checkpoint(tmp_path / "tuned", {UP: torch.rand(4), NORM: torch.rand(2)}, shards=2)
    first, second = sorted(tuned.glob("*.safetensors"))
    save_file({**load_file(first), **load_file(second)}, second)
    pack(base, tuned, tmp_path / "packed")
    unpack(base, tmp_path / "packed", tmp_path / "back")
    assert content(tmp_path / "back") == content(tuned)
    with open_tuned(tmp_path / "packed", base) as packed:
        assert packed.names == (UP, NORM)
        assert torch.equal(packed.read(UP), load_file(first)[UP])


def test_results_come_in_order_and_the_first_error_ends_the_work() -> None:
    assert list(in_order(range(50), lambda number: number * number, threads=3)) == [n * n for n in range(50)]
    assert list(in_order((), abs)) == []
    started = []

    def fail(number: int) -> int:
        started.append(number)
        if number == 4:
            raise ValueError("four")
        return number

    with pytest.raises(ValueError, match="four"):
        list(in_order(range(1000), fail, threads=2))
    assert len(started) < 20


def test_the_commands_print_sizes_and_take_a_packed_folder_as_the_tuned_one(
    models: tuple[Path, Path], tmp_path: Path
) -> None:
    base, tuned = models
    (tuned / "notes.md").write_text("mine")
    packed, back, ladder = tmp_path / "packed", tmp_path / "back", tmp_path / "ladder"

    def run(*arguments: str | Path) -> str:
        done = CliRunner().invoke(app, list(map(str, arguments)), catch_exceptions=False)
        assert done.exit_code == 0
        return " ".join(done.stdout.split())

    said = run("pack", "--base", base, "--tuned", tuned, "--output", packed)
    assert re.search(rf"{packed}: \d+ kB for \d+ kB \(\d+\.\d%\); read back and compared", said)
    assert said.endswith("not packed, as no part of the model: notes.md")
    said = run("unpack", "--base", base, "--packed", packed, "--output", back)
    assert re.search(rf"{back}: \d+ kB of weights, the same bytes as were packed", said)
    assert content(back) == {name: data for name, data in content(tuned).items() if name != "notes.md"}
    assert "weights changed" in run(
        "change", "--base", base, "--tuned", packed, "--output", tmp_path / "change"
    )
    run("restore", "--base", base, "--tuned", packed, "--output", ladder, "--percent", "5")
    with Checkpoint.open(ladder / "restored-5") as restored, Checkpoint.open(tuned) as plain:
        assert restored.names == plain.names
