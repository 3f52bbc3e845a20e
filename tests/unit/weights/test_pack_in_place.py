"""A model folder that is replaced by its packed form."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from sftlab.errors import UserError
from sftlab.weights.delta_folder import is_packed, open_tuned
from sftlab.weights.pack_in_place import pack_in_place
from sftlab.weights.packing import unpack
from sftlab.weights.restoration import ModelSource
from tests.support.packing_models import content, small_pair


def test_packed_folder_has_the_place_of_the_model_and_is_read_as_if_it_were_the_folder(
    tmp_path: Path,
) -> None:
    base, tuned = small_pair(tmp_path)
    (tuned / "training.json").write_text("{}")
    original = content(tuned)
    with open_tuned(tuned, base) as whole:
        expected = dict(whole.tensors())
    pack_in_place(base, tuned, ["training.json"])
    assert is_packed(tuned) and not list(tuned.glob("*.safetensors"))
    assert (tuned / "training.json").read_text() == "{}"
    found = dict(ModelSource(str(base), str(tuned)).tensors())
    assert found.keys() == expected.keys()
    for name, tensor in found.items():
        bits, wanted = (one.reshape(-1).view(torch.uint8) for one in (tensor, expected[name]))
        assert tensor.shape == expected[name].shape and torch.equal(bits, wanted), name
    unpack(base, tuned, tmp_path / "back")
    assert content(tmp_path / "back") | {"training.json": b"{}"} == original
    assert {file.name for file in tmp_path.iterdir()} == {"base", "tuned", "back"}


def test_second_call_changes_nothing_and_clears_what_a_killed_one_left(tmp_path: Path) -> None:
    base, tuned = small_pair(tmp_path)
    (tmp_path / ".tuned.packed").mkdir()
    pack_in_place(base, tuned)
    packed = content(tuned)
    (tmp_path / ".tuned.whole").mkdir()
    pack_in_place(base, tuned)
    assert content(tuned) == packed
    assert {file.name for file in tmp_path.iterdir()} == {"base", "tuned"}


def test_folder_that_cannot_be_packed_stays(tmp_path: Path) -> None:
    base, tuned = small_pair(tmp_path)
    original = content(tuned)
    (base / "config.json").unlink()
    with pytest.raises(UserError, match=r"config\.json"):
        pack_in_place(base, tuned)
    assert content(tuned) == original
