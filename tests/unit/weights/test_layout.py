"""Which tensors a model folder holds: those that transformers loads, or a refusal that names the files."""

from __future__ import annotations

import json
import logging
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
import torch
import transformers
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from transformers.modeling_utils import _get_resolved_checkpoint_files

from sftlab.errors import UserError
from sftlab.training.hf_model import weight_files
from sftlab.weights.ladder import restore
from sftlab.weights.model_id import model_hash
from sftlab.weights.shards import INDEX_FILE, SINGLE_FILE, Checkpoint, disagreements, layout
from tests.support.refusals import refused
from tests.support.weights_models import same_bits, save_model, save_tuned, stored, write_checkpoint

NAMES = ("a", "b", "c")
SHARDS = ("model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors")
OTHERS = (SINGLE_FILE, "consolidated.safetensors")


@dataclass(frozen=True)
class Files:
    """What the files of a folder hold, each tensor as one number, and the map of the index, if there is one."""

    held: dict[str, dict[str, float]]
    weight_map: dict[str, str] | None

    def write(self, folder: Path) -> Path:
        (folder / "config.json").write_text("{}")
        for file, tensors in self.held.items():
            save_file({name: torch.full((2,), value) for name, value in tensors.items()}, folder / file)
        if self.weight_map is not None:
            index = {"metadata": {}, "weight_map": self.weight_map}
            (folder / INDEX_FILE).write_text(json.dumps(index))
        return folder

    def disagree(self) -> bool:
        """Whether a reader would have to lose a tensor, or to choose between two, stated from the definition."""
        named = {SINGLE_FILE} if self.weight_map is None else set(self.weight_map.values())
        if not named <= set(self.held):
            return True
        if (SINGLE_FILE in self.held and named != {SINGLE_FILE}) or set(self.held) - named - {OTHERS[1]}:
            return True
        copies = [(name, value) for file in named for name, value in self.held[file].items()]
        return len(dict(copies)) != len(set(copies)) or bool(set(self.weight_map or ()) - set(dict(copies)))


@st.composite
def folders(draw: st.DrawFn) -> Files:
    """Sound and unsound folders: omissions, strangers, copies, other formats, in the index and in the shards."""
    tensors = st.dictionaries(st.sampled_from(NAMES), st.sampled_from([1.0, 1.0, 2.0]), min_size=1)
    files = draw(st.lists(st.sampled_from(SHARDS + OTHERS), min_size=1, max_size=3, unique=True))
    held = {file: draw(tensors) for file in files}
    weight_map = {name: file for file, names in held.items() for name in names if file != OTHERS[1]}
    for name in draw(st.sets(st.sampled_from(NAMES), max_size=1)):
        weight_map.pop(name, None)
    weight_map |= draw(
        st.dictionaries(st.sampled_from(NAMES), st.sampled_from([*files, SHARDS[0]]), max_size=1)
    )
    return Files(held, weight_map if weight_map and draw(st.booleans()) else None)


def loaded_by_transformers(folder: Path) -> dict[str, torch.Tensor]:
    files, _ = _get_resolved_checkpoint_files(str(folder), None, None, True, None, False)
    return {name: tensor for file in files for name, tensor in load_file(file).items()}


@settings(max_examples=300, deadline=None)
@given(folders())
def test_a_checkpoint_holds_what_transformers_loads_or_is_refused(files: Files) -> None:
    with TemporaryDirectory() as place:
        folder = files.write(Path(place))
        if files.disagree():
            with pytest.raises(UserError, match=r"\.safetensors|index\.json"):
                Checkpoint.open(folder)
            return
        expected = loaded_by_transformers(folder)
        with Checkpoint.open(folder) as checkpoint:
            assert checkpoint.names == tuple(sorted(expected))
            assert all(same_bits(checkpoint.read(name), tensor) for name, tensor in expected.items())
            assert set(checkpoint.files.values()) <= set(checkpoint.shards)
            found = layout(folder)
        holders = {
            name: [file for file in found.shards if name in files.held[file.name]] for name in expected
        }
        texts = disagreements(found, holders)
        named = files.weight_map or {}
        omitted = set(expected) - set(named) if files.weight_map else set()
        wrong = {name for name, file in named.items() if name not in files.held[file]}
        assert [(kind in text) for text in texts for kind in ("omits", "names")] == (
            [True, False] * bool(omitted) + [False, True] * bool(wrong)
        )
        assert all(named[min(wrong)] in text and min(wrong) in text for text in texts if "names" in text)
        assert {name for file in weight_files(folder) for name in load_file(file)} == set(expected)


def edit_index(folder: Path, **entries: str | None) -> None:
    path = folder / INDEX_FILE
    index = json.loads(path.read_text())
    for name, file in entries.items():
        index["weight_map"].pop(name, None)
        index["weight_map"] |= {} if file is None else {name: file}
    path.write_text(json.dumps(index))


def test_a_tensor_that_the_index_omits_is_restored_and_reported(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    save_model(tmp_path / "base", "llama", seed=0, max_shard_size="3KB")
    save_tuned(tmp_path / "tuned", tmp_path / "base", max_shard_size="3KB")
    omitted = "model.layers.1.mlp.down_proj.weight"
    for folder in ("base", "tuned"):
        edit_index(tmp_path / folder, **{omitted: None})
    before = stored(tmp_path / "tuned")
    with caplog.at_level(logging.WARNING):
        restore(tmp_path / "base", tmp_path / "tuned", "0,100", tmp_path / "out", region="all")
    for percent, source in (("0", "tuned"), ("100", "base")):
        assert same_bits(
            stored(tmp_path / "out" / f"restored-{percent}")[omitted], stored(tmp_path / source)[omitted]
        )
    _, found = transformers.AutoModelForCausalLM.from_pretrained(
        tmp_path / "out" / "restored-0", output_loading_info=True
    )
    assert not found["missing_keys"] and set(stored(tmp_path / "out" / "restored-0")) == set(before)
    shard = next(
        file.name for file in (tmp_path / "tuned").glob("*.safetensors") if omitted in load_file(file)
    )
    (message,) = [text for text in caplog.messages if str(tmp_path / "tuned") in text]
    assert f"{INDEX_FILE}: omits {omitted}, which {tmp_path / 'tuned' / shard} holds" in message


def test_a_wrong_shard_in_the_index_is_reported(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    folder = sharded(tmp_path / "model")
    held = {name: json.loads((folder / INDEX_FILE).read_text())["weight_map"][name] for name in NAMES}
    other = {SHARDS[0]: SHARDS[1], SHARDS[1]: SHARDS[0]}
    edit_index(folder, **{name: other[file] for name, file in held.items()})
    with Checkpoint.open(folder) as checkpoint:
        assert checkpoint.names == NAMES
    (message,) = caplog.messages
    assert message == (
        f"{folder / INDEX_FILE}: names {other[held['a']]} for a, which {folder / held['a']} holds (and 2 more tensors "
        "likewise); all are read, as transformers does."
    )


def test_an_index_that_agrees_with_the_only_file_is_accepted(tmp_path: Path) -> None:
    save_model(tmp_path / "base", "llama", seed=0)
    index = {"metadata": {}, "weight_map": dict.fromkeys(stored(tmp_path / "base"), SINGLE_FILE)}
    (tmp_path / "base" / INDEX_FILE).write_text(json.dumps(index))
    with Checkpoint.open(tmp_path / "base") as checkpoint:
        assert set(checkpoint.names) == set(index["weight_map"])
    edit_index(tmp_path / "base", **{"model.extra.weight": SINGLE_FILE})
    with pytest.raises(
        UserError, match=r"base/model\.safetensors: lacks model\.extra\.weight, which .*index\.json"
    ):
        Checkpoint.open(tmp_path / "base")


def sharded(folder: Path) -> Path:
    return write_checkpoint(folder, {name: torch.ones(2) for name in NAMES}, shards=2)


def test_copies_of_a_tensor_in_two_shards_are_one_tensor_if_they_agree(tmp_path: Path) -> None:
    folder = sharded(tmp_path / "model")
    second = folder / SHARDS[1]
    for value, kind in ((1.0, torch.float32), (2.0, torch.float32), (1.0, torch.bfloat16)):
        save_file({**load_file(second), "a": torch.full((2,), value, dtype=kind)}, second)
        if (value, kind) == (1.0, torch.float32):
            with Checkpoint.open(folder) as checkpoint:
                assert checkpoint.names == NAMES and checkpoint.nbytes == 24
        else:
            with pytest.raises(
                UserError, match=rf"{SHARDS[1]}: holds a with other values than .*{SHARDS[0]}"
            ):
                Checkpoint.open(folder)


def test_files_that_would_be_lost_or_chosen_among_are_named(tmp_path: Path) -> None:
    folder = sharded(tmp_path / "unnamed")
    save_file({"d": torch.ones(2)}, folder / "model-00003-of-00003.safetensors")
    with pytest.raises(
        UserError, match=r"model-00003-of-00003.* is named like a shard, but .*index\.json does not"
    ):
        Checkpoint.open(folder)
    folder = write_checkpoint(tmp_path / "variant", {"a": torch.ones(2)})
    save_file({"a": torch.ones(2)}, folder / "model.fp16.safetensors")
    with pytest.raises(UserError, match=r"model\.fp16\.safetensors: .* reads model\.safetensors alone"):
        Checkpoint.open(folder)
    folder = write_checkpoint(
        tmp_path / "other", {"a": torch.ones(2)}, {"transformers_weights": "b.safetensors"}
    )
    with refused(
        r"transformers_weights = 'b\.safetensors' makes transformers read other", value="b.safetensors"
    ):
        Checkpoint.open(folder)
    folder = sharded(tmp_path / "bare")
    (folder / INDEX_FILE).write_text(json.dumps({"weight_map": {"a": SHARDS[0]}}))
    with refused("has no metadata, which transformers requires", place="index.json"):
        Checkpoint.open(folder)


def test_the_hash_of_a_model_follows_the_files_of_the_model_alone(tmp_path: Path) -> None:
    folder = sharded(tmp_path / "model")
    first = model_hash(folder, tmp_path)
    save_file({"step": torch.ones(1)}, folder / "optimizer.safetensors")
    assert model_hash(folder, tmp_path) == first
    save_file({**load_file(folder / SHARDS[1]), "d": torch.ones(2)}, folder / SHARDS[1])
    assert model_hash(folder, tmp_path) != first
    (folder / SHARDS[1]).unlink()
    with pytest.raises(UserError, match=rf"{SHARDS[1]}: missing"):
        model_hash(folder, tmp_path)
