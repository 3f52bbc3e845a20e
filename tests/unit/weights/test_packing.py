"""Packed folders: the same bytes come back, other base models and damage are refused by name."""

from __future__ import annotations

import json
import re
from hashlib import sha256
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from typer.testing import CliRunner

from sftlab.cli.app import app
from sftlab.weights.bits import raw_type
from sftlab.weights.delta import DELTA_CHUNK
from sftlab.weights.delta_folder import open_tuned
from sftlab.weights.edits import Interpolation
from sftlab.weights.ladder import change, restore
from sftlab.weights.packing import pack, unpack
from sftlab.weights.restoration import ModelSource, write_restored
from sftlab.weights.shards import DELTA_FILE, Checkpoint
from sftlab.weights.stream import in_order
from tests.support.packing_models import DTYPES, NORM, UP, content, llama_pair, small_pair
from tests.support.weights_models import write_checkpoint


@pytest.fixture
def models(tmp_path: Path) -> tuple[Path, Path]:
    return llama_pair(tmp_path)


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


def test_progress_ends_at_its_total(models: tuple[Path, Path], tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []
    pack(*models, tmp_path / "packed", lambda done, total: seen.append((done, total)))
    assert seen[-1][0] == seen[-1][1] > 0 and sorted(seen) == seen
    seen.clear()
    unpack(models[0], tmp_path / "packed", tmp_path / "back", lambda done, total: seen.append((done, total)))
    assert seen[-1][0] == seen[-1][1] > 0


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
