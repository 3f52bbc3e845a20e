"""Pairs of models to pack."""

from __future__ import annotations

from pathlib import Path

import torch

from tests.support.weights_models import save_model, save_tuned, write_checkpoint

DTYPES = (torch.bfloat16, torch.float16, torch.float32)


UP = "model.layers.0.mlp.up_proj.weight"


NORM = "model.norm.weight"


IDS = "position_ids"


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


def llama_pair(folder: Path) -> tuple[Path, Path]:
    """A small Llama and one tuned from it, in bfloat16."""
    base, tuned = folder / "base", folder / "tuned"
    save_model(base, "llama", seed=0)
    save_tuned(tuned, base, scale=1e-3, max_shard_size="4KB")
    return base, tuned
