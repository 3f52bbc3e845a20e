"""How far each module of each layer moved."""

from __future__ import annotations

from math import isnan, sqrt
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from sftlab.weights.layer_change import by_layer, layer_changes
from sftlab.weights.shards import Checkpoint


def folder(root: Path, name: str, tensors: dict[str, torch.Tensor]) -> Path:
    path = root / name
    path.mkdir()
    save_file(tensors, path / "model.safetensors")
    (path / "config.json").write_text("{}")
    return path


@pytest.fixture
def pair(tmp_path: Path) -> tuple[Path, Path]:
    base = {
        "model.layers.0.self_attn.q_proj.weight": torch.tensor([[3.0, 4.0]]),
        "model.layers.0.mlp.up_proj.weight": torch.tensor([[0.0, 0.0]]),
        "model.layers.1.self_attn.q_proj.weight": torch.tensor([[1.0, 0.0]]),
        "model.embed_tokens.weight": torch.tensor([[2.0]]),
    }
    tuned = {name: tensor.clone() for name, tensor in base.items()}
    tuned["model.layers.0.self_attn.q_proj.weight"] += torch.tensor([[0.0, 0.5]])
    tuned["model.layers.0.mlp.up_proj.weight"] += torch.tensor([[1.0, 2.0]])
    tuned["model.embed_tokens.weight"] += 1.0
    return folder(tmp_path, "base", base), folder(tmp_path, "tuned", tuned)


def test_change_of_every_module_by_hand(pair: tuple[Path, Path]) -> None:
    with Checkpoint.open(pair[0]) as base, Checkpoint.open(pair[1]) as tuned:
        outside, q, up, second = layer_changes(base, tuned)
    assert (outside.layer, outside.squared_change, outside.squared_base) == (None, 1.0, 4.0)
    assert (q.layer, q.module, q.weights, q.changed) == (0, "attn.q", 2, 1)
    assert q.relative == pytest.approx(0.5 / 5.0)
    assert (up.module, up.squared_change) == ("mlp.up", 5.0)
    assert isnan(up.relative)  # of a base of zeros
    assert (second.layer, second.changed, second.relative) == (1, 0, 0.0)


def test_layer_is_the_sum_of_its_modules(pair: tuple[Path, Path]) -> None:
    with Checkpoint.open(pair[0]) as base, Checkpoint.open(pair[1]) as tuned:
        layers = by_layer(layer_changes(base, tuned))
    assert list(layers) == [0, 1]
    assert (layers[0].weights, layers[0].changed) == (4, 3)
    assert layers[0].relative == pytest.approx(sqrt(5.25) / 5.0)
