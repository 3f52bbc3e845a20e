"""Readers of an adapter of peft: its configuration, and the file of its factors."""

from __future__ import annotations

from pathlib import Path
from random import Random
from typing import Any

from tests.fuzz import seeds
from tests.fuzz.mutate import altered

CONFIG: dict[str, Any] = {
    "peft_type": "LORA",
    "r": 1,
    "lora_alpha": 2,
    "bias": "none",
    "fan_in_fan_out": False,
    "use_rslora": False,
    "init_lora_weights": True,
    "rank_pattern": {"embed_tokens": 1},
    "alpha_pattern": {"lm_head": 3},
}
_FACTORS: dict[str, Any] = {
    "base_model.model.lm_head.lora_A.weight": {"dtype": "F32", "shape": [1, 3], "data_offsets": [0, 12]},
    "base_model.model.lm_head.lora_B.weight": {"dtype": "F32", "shape": [2, 1], "data_offsets": [12, 20]},
}
FACTORS = seeds.safetensors(_FACTORS, bytes(20))


def adapter_config(data: bytes, folder: Path) -> object:
    return _merged(folder, data, FACTORS)


def adapter_factors(data: bytes, folder: Path) -> object:
    return _merged(folder, seeds.json_text(CONFIG), data)


def factors_of(draw: Random) -> bytes:
    return seeds.safetensors(altered(_FACTORS, draw), bytes(draw.choice((20, 20, 20, 0, 19, 40))))


def _merged(folder: Path, config: bytes, factors: bytes) -> object:
    from sftlab.weights.adapter import open_adapter

    base, adapter = folder / "base", folder / "adapter"
    for model in (base, adapter):
        model.mkdir()
    (base / "config.json").write_text("{}")
    (base / "model.safetensors").write_bytes(seeds.safetensors(seeds.HEADER, bytes(28)))
    (adapter / "adapter_config.json").write_bytes(config)
    (adapter / "adapter_model.safetensors").write_bytes(factors)
    with open_adapter(adapter, base) as found:
        return [tensor.shape for _, tensor in found.tensors()]
