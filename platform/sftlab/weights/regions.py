"""Which part of a decoder-only model a parameter belongs to, from its name alone.

The rules are general, not a list of models: the first number in a dotted name is the layer; a component
that says "norm" (or `ln`, `ln_1`, ...) marks a norm; "attn"/"attention" marks the attention block; and the
last component names the projection. They hold for Llama, Mistral, Qwen, Gemma, Phi-3, GPT-NeoX, GPT-2, OPT,
Falcon and mixtures of experts, as the tests show on real models of these families.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import get_args

from sftlab.errors import UserError
from sftlab.weights.cut import Region

OUTSIDE = "outside the layers"
_LAYERS = re.compile(r"\s*(\d{1,4})\s*(?:-\s*(\d{1,4})\s*)?", re.ASCII)
_NORM = re.compile(r"norm|^ln(_|\d|$)", re.IGNORECASE)
_ATTENTION = re.compile(r"attn|attention", re.IGNORECASE)
_MLP = re.compile(
    r"mlp|ffn|ffw|feed_forward|moe|expert|router|^fc\d|^fc_|^dense_h|^dense_4h|^w[123]$", re.IGNORECASE
)
# Buffers that older checkpoints hold in addition to the parameters: rotary tables and causal masks.
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


@lru_cache(maxsize=1024)
def layer_numbers(text: str) -> frozenset[int]:
    """The layers that a text such as "0-3" or "0,2,5-7" names, counted from 0.

    Raises UserError for a text of another form, a range that runs backwards, and a layer beyond 9,999.
    """
    numbers: set[int] = set()
    for part in text.split(","):
        found = _LAYERS.fullmatch(part)
        first, last = (int(found[1]), int(found[2] or found[1])) if found else (1, 0)
        if first > last:
            raise UserError(f"layers {text!r}: expected layers and ranges of layers, such as 0-3 or 0,2,5-7.")
        numbers |= set(range(first, last + 1))
    return frozenset(numbers)


def layers_label(text: str) -> str:
    """The one writing of a set of layers: "7,5-6,0" -> "0,5-7". Raises UserError as `layer_numbers`."""
    ranges: list[list[int]] = []
    for number in sorted(layer_numbers(text)):
        if ranges and ranges[-1][1] == number - 1:
            ranges[-1][1] = number
        else:
            ranges.append([number, number])
    return ",".join(f"{first}-{last}" if last > first else f"{first}" for first, last in ranges)


def check_layers(text: str | None, names: Iterable[str], where: object) -> None:
    """Raises UserError that names `where` (a model) if it lacks one of the layers. names: its parameters."""
    if text is None:
        return
    count = 1 + max((layer for name in names if (layer := place(name).layer) is not None), default=-1)
    beyond = sorted(number for number in layer_numbers(text) if number >= count)
    if beyond:
        plural = "s" if count > 1 else ""
        have = f"{count} layer{plural}, 0 to {count - 1}" if count else "no numbered layers"
        raise UserError(f"{where}: layers {text} include layer {beyond[0]}, but the model has {have}.")


def in_region(name: str, region: Region, layers: str | None = None) -> bool:
    """Whether the parameter `name` belongs to `region`, and to one of `layers` where these are given.

    layers: everything within the transformer layers but their norms, biases of the projections included
    (the paper's "transformer" region); attention, mlp: those blocks of the layers without norms;
    embeddings: input, position and output embeddings, without the final norm; all: every parameter.
    layers: as `layer_numbers` reads them; what is outside the transformer layers is then in no region.

    Raises UserError for an unknown region, which would hold nothing.
    """
    if region not in get_args(Region):
        raise UserError(f"region {region!r} is unknown; expected one of {', '.join(get_args(Region))}.")
    if is_buffer(name):
        return False
    where = place(name)
    if layers is not None and where.layer not in layer_numbers(layers):
        return False
    if region == "all":
        return True
    if region == "layers":
        return where.layer is not None and where.block != "norm"
    return where.block == region


def by_layer(counts: Mapping[str, int]) -> dict[str, int]:
    """Numbers of weights by parameter, summed by layer (OUTSIDE for the others)."""
    return _group(counts, _layer)


def by_module(counts: Mapping[str, int]) -> dict[str, int]:
    """Numbers of weights by parameter, summed by kind of module."""
    return _group(counts, _module)


def _layer(name: str) -> str:
    layer = place(name).layer
    return OUTSIDE if layer is None else str(layer)


def _module(name: str) -> str:
    return place(name).module


def _group(counts: Mapping[str, int], key: Callable[[str], str]) -> dict[str, int]:
    groups: Counter[str] = Counter()
    for name, count in counts.items():
        groups[key(name)] += count
    return {group: groups[group] for group in sorted(groups, key=_natural)}


def _natural(group: str) -> tuple[bool, int, str]:
    return (not group.isdigit(), int(group) if group.isdigit() else 0, group)


def percents_of(counts: Mapping[str, int]) -> dict[str, float]:
    """Numbers as percentages of their sum; all 0 where it is 0."""
    total = sum(counts.values())
    return {group: 100.0 * count / total if total else 0.0 for group, count in counts.items()}
