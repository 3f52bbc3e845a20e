"""Small models of the usual families, raw checkpoints, and an independent formulation of the restoration."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from decimal import Decimal
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

SMALL: dict[str, Any] = {
    "vocab_size": 40,
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 32,
    "bos_token_id": 0,
    "eos_token_id": 1,
    "pad_token_id": 1,
}
GATED = {"attn.q", "attn.k", "attn.v", "attn.o", "mlp.gate", "mlp.up", "mlp.down"}

# family -> (name of its configuration class, its settings, the modules of its layers)
FAMILIES: dict[str, tuple[str, dict[str, Any], set[str]]] = {
    "llama": ("LlamaConfig", SMALL | {"tie_word_embeddings": False}, GATED),
    "llama-tied": ("LlamaConfig", SMALL | {"tie_word_embeddings": True}, GATED),
    "mistral": ("MistralConfig", SMALL, GATED),
    "qwen2": ("Qwen2Config", SMALL | {"tie_word_embeddings": True}, GATED),
    "qwen3": ("Qwen3Config", SMALL | {"head_dim": 4}, GATED),
    "gemma": ("GemmaConfig", SMALL | {"head_dim": 4}, GATED),
    "gemma2": ("Gemma2Config", SMALL | {"head_dim": 4}, GATED),
    "phi3": ("Phi3Config", SMALL, {"attn.qkv", "attn.o", "mlp.gate_up", "mlp.down"}),
    "gpt-neox": (
        "GPTNeoXConfig",
        {name: value for name, value in SMALL.items() if name != "num_key_value_heads"},
        {"attn.qkv", "attn.o", "mlp.up", "mlp.down"},
    ),
    "gpt2": (
        "GPT2Config",
        {"vocab_size": 40, "n_embd": 16, "n_layer": 2, "n_head": 4, "n_positions": 32}
        | {"bos_token_id": 0, "eos_token_id": 1},
        {"attn.qkv", "attn.o", "mlp.up", "mlp.down"},
    ),
    "opt": (
        "OPTConfig",
        SMALL | {"ffn_dim": 24, "word_embed_proj_dim": 16},
        {"attn.q", "attn.k", "attn.v", "attn.o", "mlp.up", "mlp.down"},
    ),
    "falcon": ("FalconConfig", SMALL | {"bias": True}, {"attn.qkv", "attn.o", "mlp.up", "mlp.down"}),
    "mixtral": (
        "MixtralConfig",
        SMALL | {"num_local_experts": 2},
        GATED | {"mlp.router"},
    ),
    "qwen3-moe": (
        "Qwen3MoeConfig",
        SMALL | {"head_dim": 4, "num_experts": 2, "num_experts_per_tok": 1, "moe_intermediate_size": 8},
        GATED | {"mlp.router"},
    ),
}


def save_model(
    folder: Path, family: str, seed: int, dtype: torch.dtype = torch.bfloat16, **options: Any
) -> None:
    """A model of the family with random weights, and a tokenizer, as transformers saves them."""
    import transformers

    name, settings, _ = FAMILIES[family]
    torch.manual_seed(seed)
    model = transformers.AutoModelForCausalLM.from_config(getattr(transformers, name)(**settings)).to(dtype)
    model.save_pretrained(folder, **options)
    save_tokenizer(folder)


def save_tuned(folder: Path, base: Path, seed: int = 1, scale: float = 0.02, **options: Any) -> None:
    """The base model with small random updates of all parameters, as transformers saves it."""
    import transformers

    model = transformers.AutoModelForCausalLM.from_pretrained(base)
    draw = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += (torch.randn(parameter.shape, generator=draw) * scale).to(parameter.dtype)
    model.save_pretrained(folder, **options)
    save_tokenizer(folder)


def save_tokenizer(folder: Path) -> None:
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel
    from tokenizers.pre_tokenizers import Whitespace
    from transformers import PreTrainedTokenizerFast

    words = ["<s>", "</s>", "<unk>", *(f"w{number}" for number in range(37))]
    tokenizer = Tokenizer(WordLevel({word: index for index, word in enumerate(words)}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = Whitespace()
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="</s>", unk_token="<unk>").save_pretrained(
        folder
    )


def write_checkpoint(
    folder: Path,
    tensors: Mapping[str, torch.Tensor],
    config: Mapping[str, Any] | None = None,
    shards: int = 1,
) -> Path:
    """A raw checkpoint, written by the safetensors library; with several shards, names are dealt out in turn.

    Its tokenizer is a file without content, as nobody loads it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "tokenizer.json").write_text("{}")
    (folder / "config.json").write_text(
        json.dumps(config or {"model_type": "llama", "architectures": ["LlamaForCausalLM"]})
    )
    if shards == 1:
        save_file(dict(tensors), folder / "model.safetensors", metadata={"format": "pt"})
        return folder
    weight_map = {}
    for shard in range(shards):
        file = f"model-{shard + 1:05d}-of-{shards:05d}.safetensors"
        part = {
            name: tensor for index, (name, tensor) in enumerate(tensors.items()) if index % shards == shard
        }
        save_file(part, folder / file, metadata={"format": "pt"})
        weight_map |= dict.fromkeys(part, file)
    index = {"metadata": {}, "weight_map": weight_map}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    return folder


def stored(folder: Path) -> dict[str, torch.Tensor]:
    """All tensors of a folder, read by the safetensors library."""
    return {
        name: tensor
        for file in sorted(folder.glob("*.safetensors"))
        for name, tensor in load_file(file).items()
    }


def same_bits(left: torch.Tensor, right: torch.Tensor) -> bool:
    return (
        left.dtype == right.dtype
        and left.shape == right.shape
        and torch.equal(left.reshape(-1).view(torch.uint8), right.reshape(-1).view(torch.uint8))
    )


def ranked(
    base: Mapping[str, torch.Tensor],
    tuned: Mapping[str, torch.Tensor],
    order: str = "top",
    measure: str = "relative",
    seed: int = 0,
    stretch: int = 2**18,
) -> list[tuple[str, int]]:
    """All weights as (name, position) in the order of restoration, by sorting tuples: no histograms, no bits.

    seed, stretch: of the order "shuffled" (`shuffled_by_hand`).
    """
    rows = []
    for name, old in base.items():
        p = old.float().numpy().ravel()
        updates = tuned[name].float().numpy().ravel() - p
        if order == "shuffled":
            updates = np.array(shuffled_by_hand(seed, name, updates.tolist(), stretch), dtype=np.float32)
        change = np.abs(updates)
        if measure == "relative":
            change = change / (np.abs(p) + np.float32(1e-8))
        if order == "smallest-base":
            change = np.abs(p)
        sign = -1 if order in ("top", "shuffled") else 1
        rows += [(sign * float(value), name, position) for position, value in enumerate(change)]
    return [(name, position) for _, name, position in sorted(rows)]


def hashed(seed: int, name: str, position: int) -> int:
    """The key of a position, in Python's integers."""
    mask = 2**64 - 1
    offset = int.from_bytes(sha256(f"{seed}\x1f{name}".encode()).digest()[:8], "little")
    x = ((position + offset) * 0x9E3779B97F4A7C15) & mask
    x = ((x ^ (x >> 30)) * 0xBF58476D1CE4E5B9) & mask
    x = ((x ^ (x >> 27)) * 0x94D049BB133111EB) & mask
    return x >> 33


def shuffled_by_hand(seed: int, name: str, updates: Sequence[float], stretch: int) -> list[float]:
    """The updates of a whole parameter shuffled, from the definition in words and Python's lists."""
    whole = len(updates) // stretch
    sources = sorted(range(whole), key=lambda number: hashed(seed, f"{name}\x1fstretches", number))
    if len(updates) % stretch:
        sources.append(whole)
    positions = sorted(range(stretch), key=lambda position: hashed(seed, "\x1fpositions", position))
    result: list[float] = []
    for number, source in enumerate(sources):
        part = updates[source * stretch : (source + 1) * stretch]
        offset = hashed(seed, f"{name}\x1foffsets", number) % len(part)
        drawn = [part[position] for position in positions if position < len(part)]
        result += drawn[len(part) - offset :] + drawn[: len(part) - offset]
    return result


def floor_count(total: int, percent: str) -> int:
    return int((Decimal(total) * Decimal(percent)).scaleb(-2).to_integral_value("ROUND_FLOOR"))


def restored_by_hand(
    base: Mapping[str, torch.Tensor],
    tuned: Mapping[str, torch.Tensor],
    percent: str,
    inside: Callable[[str], bool],
    order: str = "top",
    measure: str = "relative",
) -> dict[str, torch.Tensor]:
    """The restored model from `ranked`."""
    region = {name: tensor for name, tensor in base.items() if inside(name)}
    places = ranked(region, tuned, order, measure)
    result = {name: tensor.clone() for name, tensor in tuned.items()}
    for name, position in places[: floor_count(len(places), percent)]:
        result[name].view(-1)[position] = base[name].view(-1)[position]
    return result


def small_stretches(monkeypatch: pytest.MonkeyPatch, size: int = 8) -> None:
    """Stretches of a few elements, so that small tensors have several."""
    for place in ("stream.CHUNK", "reader.CHUNK", "search.CHUNK", "mixer.CHUNK", "restoration.CHUNK"):
        monkeypatch.setattr(f"sftlab.weights.{place}", size)
    for place in ("controls.CHUNK", "shuffle.STRETCH"):
        monkeypatch.setattr(f"sftlab.weights.{place}", size)
