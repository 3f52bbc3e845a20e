"""Models in a small form: what is written, by a rank that writes and by one that does not.

tests/ray/test_training_kept.py compares them with the folders of trained engines.
"""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING

import pytest
import torch
from safetensors.torch import save_file

from sftlab.training.small_export import STAGING, adapted_modules, adapter_config, export_delta
from sftlab.training.stored_tensors import Part, Stretch
from sftlab.weights.delta_folder import open_tuned
from sftlab.weights.pack_in_place import pack_in_place

if TYPE_CHECKING:
    from collections.abc import Callable

    from sftlab.weights.headers import Place

FACTOR = torch.tensor([[1.0, 2.0], [3.0, 4.0]])


@pytest.fixture
def base(tmp_path: Path) -> Path:
    """A model folder of three tensors in three types."""
    folder = tmp_path / "base"
    folder.mkdir()
    stored = {"w": FACTOR.bfloat16(), "b": torch.tensor([0.5, 0.25]), "n": torch.tensor([7, 8, 9])}
    save_file(stored, folder / "model.safetensors", metadata={"format": "pt"})
    for name in ("config.json", "tokenizer.json", "training_args.bin"):
        (folder / name).write_text("{}")
    return folder


def doubled(name: str, read: Callable[[], torch.Tensor], place: Place) -> torch.Tensor | None:
    assert place.code == {"w": "BF16", "b": "F32", "n": "I64"}[name]
    return 2 * read() if name != "n" else None


def test_a_delta_is_read_as_the_trained_values_and_the_bases_others(base: Path, tmp_path: Path) -> None:
    output = tmp_path / "out"
    (output / STAGING).mkdir(parents=True)
    (output / STAGING / "model.delta").write_text("of a worker that was killed")
    (output / "model.safetensors").write_text("begun as a folder")
    export_delta(base, output, 0, doubled)
    assert {file.name for file in output.iterdir()} == {
        "config.json",
        "tokenizer.json",
        "model.delta",
        "weights.delta.json",
    }
    with open_tuned(output, base) as model:
        found = {name: model.read(name) for name in model.names}
    assert torch.equal(found["w"], (2 * FACTOR).bfloat16()) and found["b"].tolist() == [1.0, 0.5]
    assert found["n"].tolist() == [7, 8, 9]


def test_a_rank_that_does_not_write_is_asked_for_the_same_tensors_in_the_same_order(
    base: Path, tmp_path: Path
) -> None:
    asked: list[list[str]] = [[], []]
    for rank, names in enumerate(asked):

        def value_of(
            name: str, read: Callable[[], torch.Tensor], place: Place, names: list[str] = names
        ) -> torch.Tensor | None:
            names.append(name)
            return doubled(name, read, place)

        export_delta(base, tmp_path / f"out-{rank}", rank, value_of)
    assert asked[0] == asked[1] and sorted(asked[0]) == ["b", "n", "w"]
    assert not (tmp_path / "out-1").exists()


def test_a_small_form_is_not_packed_again(base: Path, tmp_path: Path) -> None:
    export_delta(base, tmp_path / "out", 0, doubled)
    before = {file.name: file.read_bytes() for file in (tmp_path / "out").iterdir()}
    pack_in_place(base, tmp_path / "out")
    (tmp_path / "adapter").mkdir()
    for name in ("adapter_config.json", "adapter_model.safetensors"):
        (tmp_path / "adapter" / name).write_text("{}")
    pack_in_place(base, tmp_path / "adapter")
    assert before == {file.name: file.read_bytes() for file in (tmp_path / "out").iterdir()}
    assert len(list((tmp_path / "adapter").iterdir())) == 2


class Adapted(torch.nn.Linear):
    """A linear layer with an adapter, as peft wraps one."""

    def __init__(self) -> None:
        super().__init__(2, 2)
        self.lora_A = {"default": SimpleNamespace()}
        self.base_layer = torch.nn.Linear(2, 2)


def test_adapters_are_kept_where_a_stored_tensor_has_the_name_of_their_module() -> None:
    model = torch.nn.Module()
    model.base_model = torch.nn.Module()
    model.base_model.model = torch.nn.ModuleDict({"q": Adapted(), "k": torch.nn.Linear(2, 2)})
    weight = model.base_model.model["q"].base_layer.weight
    assert adapted_modules(model, {"q.weight": (Part(weight),)}) == {"q": model.base_model.model["q"]}
    stretch = Stretch((1, 2), (2, 1), 0)
    for places in (
        {"query.weight": (Part(weight),)},  # under another name
        {"q.weight": (Part(weight, place=stretch),)},  # a part of it
        {"q.weight": (Part(weight),), "tied.weight": (Part(weight),)},
        {},
    ):
        assert adapted_modules(model, places) is None
    assert adapted_modules(torch.nn.Linear(2, 2), {}) is None


def test_the_configuration_of_an_adapter_names_no_folder_and_lists_its_modules_in_order() -> None:
    peft = {
        "peft_type": SimpleNamespace(value="LORA"),
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": "/home/me/models/base",
        "r": 4,
        "lora_alpha": 8,
        "lora_dropout": 0.1,
        "bias": "none",
        "fan_in_fan_out": False,
        "target_modules": {"v_proj", "q_proj"},
        "runtime_config": {"ephemeral_gpu_offload": False},
    }
    assert adapter_config(peft) == {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": None,
        "r": 4,
        "lora_alpha": 8,
        "lora_dropout": 0.1,
        "bias": "none",
        "fan_in_fan_out": False,
        "inference_mode": True,
        "target_modules": ["q_proj", "v_proj"],
    }
