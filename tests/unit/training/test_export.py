"""Writing tensors into a copy of a safetensors file, and what is copied beside them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import torch
from safetensors.torch import load_file, save_file

from sftlab.errors import UserError
from sftlab.training.export import read_header, rewrite_file
from sftlab.training.hf_model import tensor_files
from sftlab.training.records import DivergedError
from sftlab.training.stored_tensors import homes
from sftlab.training.stored_values import finite
from sftlab.weights.companions import companions, copy_files
from sftlab.weights.model_id import model_hash
from tests.support.refusals import refused

if TYPE_CHECKING:
    from sftlab.training.export import Reader


@pytest.fixture
def base(tmp_path: Path) -> Path:
    """A model folder of three tensors in three dtypes."""
    folder = tmp_path / "base"
    folder.mkdir()
    stored = {
        "w": torch.tensor([[1.0, 2.0], [3.0, 4.0]], dtype=torch.bfloat16),
        "b": torch.tensor([0.5, 0.25]),
        "n": torch.tensor([7, 8, 9]),
    }
    save_file(stored, folder / "model.safetensors", metadata={"format": "pt"})
    for name in ("config.json", "tokenizer.json", "chat_template.jinja", "modeling.py", "old.bin", "x.pt"):
        (folder / name).write_text("{}")
    return folder


def test_a_rewritten_file_keeps_the_header_and_rounds_new_values_to_the_bases_dtype(base: Path) -> None:
    def value_of(name: str, read: Reader) -> torch.Tensor | None:
        if name == "w":
            return torch.full((2, 2), 1 + 2**-9)  # a tie in bf16, rounded to the even neighbour 1
        return read() + 1 if name == "b" else None

    new = base / "new.safetensors"
    rewrite_file(base / "model.safetensors", new, value_of)
    assert read_header(new) == read_header(base / "model.safetensors")
    out = load_file(new)
    assert out["w"].dtype == torch.bfloat16
    assert torch.equal(out["w"], torch.ones(2, 2, dtype=torch.bfloat16))
    assert out["b"].tolist() == [1.5, 1.25]
    assert out["n"].tolist() == [7, 8, 9]


def test_a_rank_that_does_not_write_is_asked_for_the_same_tensors_in_the_same_order(base: Path) -> None:
    asked: list[list[str]] = [[], []]
    for names, output in zip(asked, (base / "new.safetensors", None), strict=True):

        def value_of(name: str, read: Reader, names: list[str] = names) -> None:  # noqa: ARG001
            names.append(name)

        rewrite_file(base / "model.safetensors", output, value_of)
    assert asked[0] == asked[1]
    assert sorted(asked[0]) == ["b", "n", "w"]


def test_without_new_values_the_copy_is_the_base_byte_for_byte(base: Path) -> None:
    rewrite_file(base / "model.safetensors", base / "new.safetensors", lambda _name, _read: None)
    assert (base / "new.safetensors").read_bytes() == (base / "model.safetensors").read_bytes()


def test_configuration_and_tokenizer_are_copied_but_neither_code_nor_pickles_nor_weights(base: Path) -> None:
    output = base.parent / "out"
    output.mkdir()
    copy_files(companions(base), output)
    assert {file.name for file in output.iterdir()} == {
        "config.json",
        "tokenizer.json",
        "chat_template.jinja",
    }


def test_every_file_that_travels_is_part_of_the_models_identity(base: Path) -> None:
    names = {f"tokenizer{ending}" for ending in (".json", ".jinja", ".model", ".spm", ".tiktoken", ".txt")}
    (base / "additional_chat_templates").mkdir()
    names |= {"additional_chat_templates/tool.jinja", "merges.txt", "tekken.json"}
    for name in names:
        (base / name).write_text("{}")
    assert names < {one.name for one in companions(base)}
    hashed = model_hash(base, base.parent / "store")
    for name in sorted(names):
        (base / name).write_text("changed")
        assert hashed != (hashed := model_hash(base, base.parent / "store")), name


def test_weights_that_are_not_finite_are_refused_by_name() -> None:
    assert finite("w", torch.ones(2)).tolist() == [1, 1]
    for value in (float("nan"), float("inf")):
        with refused("w is not finite", value="w") as caught:
            finite("w", torch.tensor([1.0, value]))
        assert type(caught.value) is DivergedError


SHAPES = {"w": (2, 2), "b": (2,), "fused": (2,)}


class Backbone(torch.nn.Module):
    """A model whose parameters carry a prefix that the stored names may lack."""

    base_model_prefix = "body"

    def __init__(self, names: list[str]) -> None:
        super().__init__()
        self.body = torch.nn.ParameterDict({name: torch.zeros(SHAPES[name]) for name in names})


def test_stored_names_find_their_parameters_with_and_without_the_prefix(base: Path) -> None:
    model = Backbone(["w", "b"])
    found = homes(base, model)
    assert [part.parameter is model.body["w"] for part in found["w"]] == [True]
    assert set(found) == {"w", "b"}


def test_a_parameter_that_no_stored_tensor_fills_is_an_error(base: Path) -> None:
    with refused(r"do not fill body\.fused \(1 such tensors\) of Backbone"):
        homes(base, Backbone(["w", "b", "fused"]))


def test_a_truncated_weight_file_is_told(base: Path) -> None:
    whole = (base / "model.safetensors").read_bytes()
    (base / "model.safetensors").write_bytes(whole[:-4])
    with pytest.raises(UserError, match="is truncated"):
        tensor_files(base)
