"""Bad models, bad folders, a full disk: the message names the file or tensor and nothing is half-written."""

import json
import os
import resource
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

import sftlab
from sftlab.cli.app import at_home
from sftlab.errors import UserError
from sftlab.files import claimed
from sftlab.weights.ladder import change, restore
from sftlab.weights.pairs import check_pair
from sftlab.weights.shards import Checkpoint
from sftlab.weights.writer import ShardWriter, TensorSpec, check_space
from tests.support.refusals import refused
from tests.support.weights_models import same_bits, stored, write_checkpoint

UP, DOWN = "model.layers.0.mlp.up_proj.weight", "model.layers.0.mlp.down_proj.weight"
GATE = "model.layers.0.mlp.gate_proj.weight"
EMBEDDING, HEAD = "model.embed_tokens.weight", "lm_head.weight"


def model(folder: Path, shards: int = 1, **tensors: torch.Tensor) -> Path:
    weights = {UP: torch.ones(4, 2), DOWN: torch.ones(2, 4), EMBEDDING: torch.ones(3, 2)}
    return write_checkpoint(folder, weights | tensors, shards=shards)


def damage(folder: Path, kind: str) -> None:
    file, index = folder / "model.safetensors", folder / "model.safetensors.index.json"
    if kind == "truncated":
        file.write_bytes(file.read_bytes()[:-5])
    elif kind == "cut within the header":
        file.write_bytes(file.read_bytes()[:40])
    elif kind == "empty":
        file.write_bytes(b"")
    elif kind == "longer":
        file.write_bytes(file.read_bytes() + b"more")
    elif kind == "header is no JSON":
        data = file.read_bytes()
        file.write_bytes(data[:8] + b"!" + data[9:])
    elif kind == "header is a list":
        file.write_bytes((8).to_bytes(8, "little") + b"[1, 2] ")
    elif kind == "missing shard":
        (folder / "model-00002-of-00002.safetensors").unlink()
    elif kind == "name not in its shard":
        data = json.loads(index.read_text())
        data["weight_map"]["model.extra.weight"] = "model-00001-of-00002.safetensors"
        index.write_text(json.dumps(data))
    elif kind == "shard outside":
        data = json.loads(index.read_text())
        data["weight_map"][UP] = "../model.safetensors"
        index.write_text(json.dumps(data))
    elif kind == "index without map":
        index.write_text("{}")
    elif kind == "index is no JSON":
        index.write_text("{")
    elif kind == "no config":
        (folder / "config.json").unlink()
    elif kind == "config is no JSON":
        (folder / "config.json").write_text("no")


@pytest.mark.parametrize(
    ("kind", "shards", "message"),
    [
        ("truncated", 1, "model.safetensors: is truncated"),
        ("cut within the header", 1, "model.safetensors: is truncated"),
        ("empty", 1, "model.safetensors: is truncated"),
        ("longer", 1, "model.safetensors: is damaged"),
        ("header is no JSON", 1, "model.safetensors: its header is damaged"),
        ("header is a list", 1, "model.safetensors: "),
        ("missing shard", 2, "model-00002-of-00002.safetensors: missing, but .* says it holds"),
        ("name not in its shard", 2, "model-00001-of-00002.safetensors: lacks model.extra.weight"),
        ("shard outside", 2, "is outside the folder"),
        ("index without map", 2, "has no weight_map"),
        ("index is no JSON", 2, "is not readable JSON"),
        ("no config", 1, "config.json: not found"),
        ("config is no JSON", 1, "config.json: is not readable JSON"),
    ],
)
def test_damaged_checkpoints_are_refused(kind: str, shards: int, message: str, tmp_path: Path) -> None:
    base, tuned = model(tmp_path / "base"), model(tmp_path / "tuned", shards=shards)
    damage(tuned, kind)
    with pytest.raises(UserError, match=message):
        restore(base, tuned, "10", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_folders_without_safetensors_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="nowhere: is not a folder"):
        Checkpoint.open(tmp_path / "nowhere")
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    with pytest.raises(UserError, match=r"holds neither model\.safetensors nor"):
        Checkpoint.open(folder)
    torch.save({UP: torch.ones(2)}, folder / "pytorch_model.bin")
    with pytest.raises(
        UserError, match=r"pickle weights \(pytorch_model.bin\).* are refused.*save_pretrained"
    ):
        Checkpoint.open(folder)


def test_a_folder_with_two_sets_of_weights_is_refused(tmp_path: Path) -> None:
    folder = model(tmp_path / "model", shards=2)
    save_file({UP: torch.ones(2)}, folder / "model.safetensors")
    with refused(r"holds both model\.safetensors and", advice="delete"):
        Checkpoint.open(folder)


def test_an_adapter_is_no_model(tmp_path: Path) -> None:
    folder = model(tmp_path / "adapter")
    (folder / "model.safetensors").rename(folder / "adapter_model.safetensors")
    with refused("is an adapter without its model"):
        Checkpoint.open(folder)


def test_models_that_do_not_fit_name_the_first_tensor_that_differs(tmp_path: Path) -> None:
    base = model(tmp_path / "base")
    others = {
        f"has no parameter {GATE}": {GATE: torch.ones(2)},
        rf"{UP} has shape \[5, 2\], but \[4, 2\]": {UP: torch.ones(5, 2)},
        f"{DOWN} is float16, but float32": {DOWN: torch.ones(2, 4).half(), UP: torch.ones(4, 2).half()},
    }
    for index, (message, tensors) in enumerate(others.items()):
        tuned = model(tmp_path / f"tuned-{index}", **tensors)
        for command in (
            lambda tuned=tuned: change(base, tuned, tmp_path / "out"),
            lambda tuned=tuned: restore(base, tuned, "10", tmp_path / "out"),
        ):
            with pytest.raises(UserError, match=message):
                command()
    assert not (tmp_path / "out").exists()


def test_quantised_weights_cannot_be_ranked(tmp_path: Path) -> None:
    base = model(tmp_path / "base", **{UP: torch.ones(4, 2, dtype=torch.int8)})
    with Checkpoint.open(base) as checkpoint, pytest.raises(UserError, match=f"{UP} is int8"):
        check_pair(checkpoint, checkpoint)


@pytest.mark.parametrize("value", [float("nan"), -float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("name", [UP, EMBEDDING])
@pytest.mark.parametrize("broken", ["base", "tuned"])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
def test_weights_that_are_not_finite_are_named(
    value: float, name: str, broken: str, dtype: torch.dtype, tmp_path: Path
) -> None:
    for which in ("base", "tuned"):
        tensors = {one: torch.ones(4, 2, dtype=dtype) for one in (UP, DOWN, EMBEDDING)}
        if which == broken:
            tensors[name][2, 1] = value
        write_checkpoint(tmp_path / which, tensors)
    with pytest.raises(UserError, match=f"{broken}: {name} holds NaN or infinite weights"):
        restore(tmp_path / "base", tmp_path / "tuned", "10", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_change_beyond_float32_is_refused(tmp_path: Path) -> None:
    base = model(tmp_path / "base", **{UP: torch.zeros(4, 2)})
    tuned = model(tmp_path / "tuned", **{UP: torch.full((4, 2), 1e35)})
    with pytest.raises(UserError, match=f"{UP} has weights so far"):
        change(base, tuned, tmp_path / "out")


def test_a_region_without_parameters_is_refused(tmp_path: Path) -> None:
    base = model(tmp_path / "base")
    with pytest.raises(UserError, match="region attention selects no parameter"):
        change(base, base, tmp_path / "out", region="attention")


def test_embeddings_that_should_be_tied_but_differ_are_refused(tmp_path: Path) -> None:
    weights = {EMBEDDING: torch.ones(3, 2), HEAD: torch.zeros(3, 2), UP: torch.ones(2)}
    folder = write_checkpoint(tmp_path / "base", weights, {"tie_word_embeddings": True})
    with pytest.raises(UserError, match=f"{HEAD} and {EMBEDDING} differ"):
        change(folder, folder, tmp_path / "out")


def test_an_output_with_other_content_is_left_alone(tmp_path: Path) -> None:
    base = model(tmp_path / "base")
    with refused(r"holds config\.json, which is no result", place="base"):
        restore(base, base, "10", base)
    with pytest.raises(UserError, match="is a file"):
        change(base, base, base / "config.json")
    assert {file.name for file in base.iterdir()} == {"config.json", "model.safetensors", "tokenizer.json"}


def test_a_second_run_replaces_its_results_and_clears_unfinished_pieces(tmp_path: Path) -> None:
    base, tuned = model(tmp_path / "base"), model(tmp_path / "tuned", **{UP: torch.zeros(4, 2)})
    restore(base, tuned, "10,50", tmp_path / "out")
    (tmp_path / "out" / ".restored-10.1a2b3c4d.partial").mkdir()
    restore(base, tuned, "50,10", tmp_path / "out", order="bottom")
    names = sorted(entry.name for entry in (tmp_path / "out").iterdir())
    assert names == ["change.json", "restored-10", "restored-50"]
    assert same_bits(stored(tmp_path / "out" / "restored-50")[UP], torch.zeros(4, 2))


def test_a_restored_model_that_change_json_would_no_longer_describe_is_not_left_beside_it(
    tmp_path: Path,
) -> None:
    base, tuned = model(tmp_path / "base"), model(tmp_path / "tuned", **{UP: torch.zeros(4, 2)})
    restore(base, tuned, "10,50", tmp_path / "out")
    before = (tmp_path / "out" / "change.json").read_bytes()
    for call in (
        lambda: restore(base, tuned, "50", tmp_path / "out", order="bottom"),
        lambda: change(base, tuned, tmp_path / "out", order="bottom"),
    ):
        with refused("holds restored-10 of an earlier call", place="out", advice="new folder"):
            call()
    assert (tmp_path / "out" / "change.json").read_bytes() == before


@pytest.mark.parametrize("which", ["base", "tuned"])
def test_a_model_is_never_overwritten_by_its_own_restoration(which: str, tmp_path: Path) -> None:
    model(tmp_path / "other", **{UP: torch.zeros(4, 2)})
    mine = model(tmp_path / "out" / "restored-10")
    before = (mine / "model.safetensors").read_bytes()
    (tmp_path / "link").symlink_to(mine)
    folders = {"base": tmp_path / "other", "tuned": tmp_path / "other", which: tmp_path / "link"}
    with pytest.raises(UserError, match=rf"--{which} .*link: would be overwritten"):
        restore(folders["base"], folders["tuned"], "5,10.0", tmp_path / "out")
    assert (mine / "model.safetensors").read_bytes() == before


def test_too_little_room_is_said_before_any_work(tmp_path: Path) -> None:
    with refused("needs 1,000 TB, but the disk has", place="out"):
        check_space(tmp_path / "not" / "yet" / "out", 10**15)


def test_an_error_while_writing_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError):
        with ShardWriter(tmp_path / "model", {UP: TensorSpec("F32", (4,))}) as writer:
            writer.write(UP, 0, np.ones(4, dtype=np.float32).view(np.uint32))
            raise ZeroDivisionError
    assert list(tmp_path.iterdir()) == []


def run_limited(command: str, prepare: Callable[[], None]) -> subprocess.CompletedProcess[str]:
    path = str(Path(sftlab.__file__).parents[1])
    return subprocess.run(
        [sys.executable, "-c", command],
        env={**os.environ, "PYTHONPATH": path},
        preexec_fn=prepare,
        capture_output=True,
        text=True,
        check=False,
    )


def test_a_disk_that_refuses_to_take_more_is_a_user_error_and_leaves_nothing(tmp_path: Path) -> None:
    """A limit on file sizes stands in for a full disk: the kernel refuses the write half-way in the same way."""

    def limit() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, 300_000))

    base = write_checkpoint(tmp_path / "base", {UP: torch.ones(200_000)})
    done = run_limited(
        "from sftlab.weights.ladder import restore\n"
        "from sftlab.errors import UserError\n"
        "try:\n"
        f"    restore({str(base)!r}, {str(base)!r}, '1,10', {str(tmp_path / 'out')!r})\n"
        "except UserError as error:\n"
        "    print(error)\n",
        limit,
    )
    assert "restored-1: cannot be written: File too large; free some space" in done.stdout, done.stderr
    assert not (tmp_path / "out").exists()


def test_a_configuration_that_never_ends_is_refused(tmp_path: Path) -> None:
    for target, why in (("/dev/zero", "is no regular file"), ("long", "has over 67,108,864 characters")):
        (tmp_path / "long").write_text(" " * (2**26 + 1))
        (tmp_path / "config.json").unlink(missing_ok=True)
        (tmp_path / "config.json").symlink_to(target)
        with pytest.raises(UserError, match=rf"config\.json: {why}"):
            Checkpoint.open(tmp_path)


def test_two_calls_on_one_output_do_not_mix(tmp_path: Path) -> None:
    base = write_checkpoint(tmp_path / "base", {"model.layers.0.mlp.up_proj.weight": torch.ones(4)})
    output = tmp_path / "out"
    for call in (lambda: restore(base, base, "10", output), lambda: change(base, base, output)):
        with claimed(output), pytest.raises(UserError, match=r"out: another call writes there"):
            call()
    assert not output.exists()
    restore(base, base, "10", output)


def test_an_output_that_cannot_be_written_is_found_before_the_search(tmp_path: Path) -> None:
    base = write_checkpoint(tmp_path / "base", {"model.layers.0.mlp.up_proj.weight": torch.ones(4)})
    (tmp_path / "file").touch()
    with refused("cannot be made a folder", place="file/out"):
        restore(
            base, base, "10", tmp_path / "file/out", progress=lambda *_: pytest.fail("the search has begun")
        )


def test_a_tilde_is_the_home_of_the_user(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    write_checkpoint(tmp_path / "base", {"model.layers.0.mlp.up_proj.weight": torch.ones(4)})
    restore("~/base", "~/base", "10", "~/out")
    assert (tmp_path / "out/restored-10").is_dir() and not (tmp_path / "~").exists()
    assert at_home(["restore", "--output=~/x", "--set=a=~b", "~/y"]) == [
        "restore",
        f"--output={tmp_path}/x",
        "--set=a=~b",
        "~/y",
    ]
