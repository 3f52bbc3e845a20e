"""Stored tensors and the parameters that transformers makes of them, for families that convert on loading."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import transformers
from safetensors.torch import save_file
from transformers.core_model_loading import revert_weight_conversion

from sftlab.training.export import export
from sftlab.training.stored_tensors import homes, placed
from tests.support.refusals import refused
from tests.support.weights_models import same_bits, save_model, stored

# Renamed, experts stacked, experts stacked under other names, and names that are kept.
CONVERTED = ("gpt-neox", "mixtral", "qwen3-moe", "gpt2")
# Another way of conversion each: fused and transposed experts, divided matrices, prefixes, no conversion.
SMALLER = {"num_hidden_layers": 2, "n_layer": 2, "num_layers": 2, "n_layers": 2}
KINDS = (
    "deepseek_v3",
    "ernie4_5_moe",
    "gpt_oss",
    "granitemoe",
    "hrm_text",
    "jamba",
    "lfm2",
    "llama4_text",
    "minimax",
    "olmoe",
    "qwen3_next",
    "bloom",
)


def load(folder: Path) -> Any:
    return transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)


@pytest.mark.parametrize("family", CONVERTED)
def test_an_export_stores_what_transformers_saves_of_the_trained_model(family: str, tmp_path: Path) -> None:
    """Every parameter is changed in memory; names, shapes and bits are those of `save_pretrained`."""
    base = tmp_path / "base"
    save_model(base, family, 1, torch.float32)
    model = load(base)
    places = homes(base, model)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += torch.rand_like(parameter)
    export(SimpleNamespace(module=model, optimizer=None), base, places, tmp_path / "exported", 0)
    model.save_pretrained(tmp_path / "saved")
    found, expected = stored(tmp_path / "exported"), stored(tmp_path / "saved")
    assert found.keys() == expected.keys() == stored(base).keys()
    assert [name for name in found if not same_bits(found[name], expected[name])] == []


@pytest.mark.parametrize("kind", KINDS)
def test_every_number_of_a_stored_tensor_has_one_place_in_the_model(kind: str) -> None:
    """transformers' names for saving; on the meta device."""
    config = transformers.CONFIG_MAPPING[kind]()
    for field, value in SMALLER.items():
        if hasattr(config, field):
            setattr(config, field, value)
    with torch.device("meta"):
        model = transformers.AutoModelForCausalLM.from_config(config)
    model.tie_weights()
    saved = revert_weight_conversion(model, dict(model.named_parameters()))
    found = placed({name: tuple(tensor.shape) for name, tensor in saved.items()}, model, Path(kind))
    assert found.keys() == saved.keys()
    for name, parts in found.items():
        sizes = [part.in_stored(torch.empty(saved[name].shape, device="meta")).shape for part in parts]
        assert sum(map(torch.Size.numel, sizes)) == saved[name].numel(), name
        assert sizes == [part.in_parameter(part.parameter).shape for part in parts], name


def test_a_checkpoint_of_another_shape_than_its_config_is_refused_by_name(tmp_path: Path) -> None:
    save_model(tmp_path, "gpt-neox", 1)
    tensors = stored(tmp_path)
    tensors["embed_out.weight"] = tensors["embed_out.weight"][:7].clone()
    save_file(tensors, tmp_path / "model.safetensors", metadata={"format": "pt"})
    config = json.loads((tmp_path / "config.json").read_text())
    with torch.device("meta"):
        model = transformers.AutoModelForCausalLM.from_config(transformers.GPTNeoXConfig(**config))
    with refused(r"embed_out\.weight is stored with shape \[7, 16\].*makes lm_head\.weight"):
        homes(tmp_path, model)
