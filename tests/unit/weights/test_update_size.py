"""How large updates are: by hand, and against sums over whole tensors."""

from __future__ import annotations

from math import isnan, sqrt
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from sftlab.weights.regions import OUTSIDE, place
from sftlab.weights.update_size import UpdateSize, together, update_sizes
from tests.support.weights_models import save_model, save_tuned, write_checkpoint


def test_sizes_of_every_module_by_hand(tmp_path: Path) -> None:
    base = {
        "model.layers.10.mlp.up_proj.weight": torch.tensor([[0.0, 2.0]]),
        "model.layers.2.self_attn.q_proj.weight": torch.tensor([[3.0, 4.0]]),
        "model.embed_tokens.weight": torch.tensor([[2.0]]),
    }
    tuned = {name: tensor.clone() for name, tensor in base.items()}
    tuned["model.layers.10.mlp.up_proj.weight"] += torch.tensor([[0.0, -1.0]])
    tuned["model.layers.2.self_attn.q_proj.weight"] += torch.tensor([[0.75, 1.0]])
    write_checkpoint(tmp_path / "base", base)
    write_checkpoint(tmp_path / "tuned", tuned)
    q, up, embeddings = update_sizes(tmp_path / "base", tmp_path / "tuned")
    assert (q.layer, q.module, q.weights, q.changed) == ("2", "attn.q", 2, 2)
    assert (q.absolute, q.squared, q.squared_base, q.norm) == (1.75, 1.5625, 25.0, 1.25)
    assert q.relative == pytest.approx(0.5, rel=1e-6) and q.relative_norm == 0.25
    assert (up.layer, up.module, up.changed, up.changed_share) == ("10", "mlp.up", 1, 0.5)
    assert up.relative == pytest.approx(0.5, rel=1e-6) and up.mean_relative == pytest.approx(0.25, rel=1e-6)
    assert (embeddings.layer, embeddings.squared, embeddings.relative_norm) == (OUTSIDE, 0.0, 0.0)
    whole = together([q, up, embeddings])
    assert (whole.weights, whole.changed, whole.absolute) == (5, 3, 2.75)
    assert whole.relative_norm == pytest.approx(sqrt(2.5625 / 33.0))
    assert isnan(UpdateSize("0", "x", 1, 0, 0.0, 0.0, 0.0, 0.0).relative_norm)


def test_sizes_equal_sums_over_whole_tensors(tmp_path: Path) -> None:
    save_model(tmp_path / "base", "llama-tied", seed=0)
    save_tuned(tmp_path / "tuned", tmp_path / "base")
    base, tuned = (load_file(tmp_path / name / "model.safetensors") for name in ("base", "tuned"))
    found = {(size.layer, size.module): size for size in update_sizes(tmp_path / "base", tmp_path / "tuned")}
    assert sum(size.weights for size in found.values()) == sum(tensor.numel() for tensor in base.values())
    for (layer, module), size in found.items():
        names = [
            name
            for name in base
            if (str(place(name).layer) if place(name).layer is not None else OUTSIDE, place(name).module)
            == (layer, module)
        ]
        moved = torch.cat([(tuned[name].double() - base[name].double()).flatten() for name in names])
        assert size.changed == int((moved != 0).sum())
        assert size.absolute == pytest.approx(float(moved.abs().sum()), rel=1e-6)
        assert size.squared == pytest.approx(float(moved.square().sum()), rel=1e-6)
