"""Which part of a decoder-only model a parameter belongs to, from its name alone.

The rules are general, not a list of models: the first number in a dotted name is the layer; a component
that says "norm" (or `ln`, `ln_1`, ...) marks a norm; "attn"/"attention" marks the attention block; and the
last component names the projection. They hold for Llama, Mistral, Qwen, Gemma, Phi-3, GPT-NeoX, GPT-2, OPT,
Falcon and mixtures of experts, as the tests show on real models of these families.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache

from sftlab.weights.cut import Region

_NORM = re.compile(r"norm|^ln(_|\d|$)", re.IGNORECASE)
_ATTENTION = re.compile(r"attn|attention", re.IGNORECASE)
_MLP = re.compile(
    r"mlp|ffn|ffw|feed_forward|moe|expert|router|^fc\d|^fc_|^dense_h|^dense_4h|^w[123]$", re.IGNORECASE
)
# Buffers that older checkpoints carry beside the parameters: rotary tables and causal masks.
_BUFFER = re.compile(
    r"(rotary_emb\.|\.inv_freq$|\.masked_bias$|(^|\.)(attn|attention)\.bias$|(^|\.)position_ids$|\.embed_scale$)"
)
_ATTENTION_NAMES = {
    "query": "q",
    "key": "k",
    "value": "v",
    "out_proj": "o",
    "dense": "o",
    "c_proj": "o",
    "c_attn": "qkv",
    "query_key_value": "qkv",
    "Wqkv": "qkv",
}
_MLP_NAMES = {
    "w1": "gate",
    "w3": "up",
    "w2": "down",
    "fc1": "up",
    "fc2": "down",
    "fc_in": "up",
    "fc_out": "down",
    "c_fc": "up",
    "c_proj": "down",
    "dense_h_to_4h": "up",
    "dense_4h_to_h": "down",
    "gate": "router",
}


@dataclass(frozen=True)
class Place:
    """Where a parameter lives: its layer (None outside the layers), its block and its module (Table 10)."""

    layer: int | None
    block: str  # attention, mlp, norm, embeddings or other
    module: str  # attn.q, mlp.down, norm, embed_tokens, lm_head, ...


def is_buffer(name: str) -> bool:
    """True for what is no parameter: rotary tables and causal masks in older checkpoints."""
    return _BUFFER.search(name) is not None


@lru_cache(maxsize=65536)
def place(name: str) -> Place:
    """The place of the parameter `name`. A bias shares the module of its weight."""
    parts = [part for part in name.split(".") if part]
    path = parts[:-1] if parts[-1] in ("weight", "bias") and len(parts) > 1 else parts
    layer = next((int(part) for part in path if part.isdigit()), None)
    own = path[-1]
    if any(_NORM.search(part) for part in path):
        return Place(layer, "norm", "norm")
    if layer is None:
        return Place(None, "embeddings", own)
    if any(_ATTENTION.search(part) for part in path):
        return Place(layer, "attention", f"attn.{_projection(own, _ATTENTION_NAMES)}")
    if any(_MLP.search(part) for part in path):
        return Place(layer, "mlp", f"mlp.{_projection(own, _MLP_NAMES)}")
    return Place(layer, "other", f"other.{own}")


def _projection(own: str, names: dict[str, str]) -> str:
    return names.get(own) or own.removesuffix("_proj")


def in_region(name: str, region: Region) -> bool:
    """Whether the parameter `name` belongs to `region`.

    layers: everything within the transformer layers but their norms, biases of the projections included
    (the paper's "transformer" region); attention, mlp: those blocks of the layers without norms;
    embeddings: input, position and output embeddings, without the final norm; all: every parameter.
    """
    if is_buffer(name):
        return False
    where = place(name)
    if region == "all":
        return True
    if region == "layers":
        return where.layer is not None and where.block != "norm"
    return where.block == region
