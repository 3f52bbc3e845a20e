"""Which part of a decoder-only model a parameter belongs to, from the module that owns it.

A dotted name is the path of modules to a parameter. The owner, its last module, says whether it is a norm. The
outermost module within the layer that is an attention or an MLP says which block it is in. A word elsewhere in the name
decides nothing: `input_layernorm.mlp.fc1` is no norm, and `attn_hyper_connection` is no attention. A layer is a number
behind a list of layers; the numbers of experts and of other lists are none. The rules hold for every causal language
model that transformers ships; benchmarks/families.py walks them.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import get_args

from sftlab.errors import UserError
from sftlab.weights.cut import Region

OUTSIDE = "outside the layers"
_LAYERS = re.compile(r"\s*(\d{1,4})\s*(?:-\s*(\d{1,4})\s*)?", re.ASCII)
# Each is compared with one whole component of the name.
_LIST_OF_LAYERS = re.compile(r"layers?|h|blocks?", re.ASCII)
_NUMBER = re.compile(r"\d+", re.ASCII)
_NORM = re.compile(r"(.*_)?([a-z]*norm|ln)\d*(_.*)?", re.IGNORECASE)
_ATTENTION = re.compile(r".*(attn|attention)", re.IGNORECASE)
_MLP = re.compile(
    r".*(mlp|ffn|ffw|ff|feed_?forward|moe|experts?)|router|dense_(h_to_4h|4h_to_h)",
    re.IGNORECASE,
)
# Owners that say what they are where no module around them does.
_BARE_ATTENTION = {"q_proj", "k_proj", "v_proj", "o_proj", "qkv_proj", "query_key_value", "Wqkv", "c_attn"}
_BARE_MLP = {"up_proj", "down_proj", "gate_proj", "gate"} | {
    "fc1",
    "fc2",
    "fc_in",
    "fc_out",
    "c_fc",
    "w1",
    "w2",
    "w3",
}
_BARE_MLP_AROUND = {"intermediate", "output"}  # of BERT and its kind
# Towers of other kinds of input, and heads that predict further tokens: no part of the language model's layers.
_BESIDE = re.compile(r"(.*_)?(vision|visual|audio|image|img|video|speech)(_.*)?|mtp.*", re.IGNORECASE)
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
    is_module = parts[-1] in ("weight", "bias") and len(parts) > 1
    path = parts[:-1] if is_module else parts
    own, modules = path[-1], parts[:-1]
    at = _layer_at(parts[:-1])
    layer = None if at is None else int(parts[at])
    within = modules if at is None else modules[at + 1 :]
    owner = next((part for part in reversed(within) if not _NUMBER.fullmatch(part)), "")
    if _NORM.fullmatch(owner):
        return Place(layer, "norm", "norm")
    if layer is None:
        beside = any(_BESIDE.fullmatch(part) for part in modules)
        return Place(None, "other" if beside else "embeddings", own)
    block = _block(within)
    if block == "attention":
        return Place(layer, block, f"attn.{_projection(own, _ATTENTION_NAMES)}")
    if block == "mlp":
        return Place(layer, block, f"mlp.{_projection(own, _MLP_NAMES)}")
    return Place(layer, "other", f"other.{own}")


def _layer_at(modules: Sequence[str]) -> int | None:
    """Where in a path of modules the number of the transformer layer is; None outside of the layers."""
    for at, part in enumerate(modules):
        if _BESIDE.fullmatch(part):
            return None
        if _NUMBER.fullmatch(part) and at and _LIST_OF_LAYERS.fullmatch(modules[at - 1]):
            return at
    return 0 if modules and _NUMBER.fullmatch(modules[0]) else None


def _block(within: Sequence[str]) -> str:
    """attention, mlp or other, of the modules within a layer that lead to a parameter."""
    for part in within:
        if _ATTENTION.fullmatch(part):
            return "attention"
        if _MLP.fullmatch(part):
            return "mlp"
    if within and within[-1] in _BARE_ATTENTION:
        return "attention"
    if within and (within[-1] in _BARE_MLP or _BARE_MLP_AROUND.intersection(within[:-1])):
        return "mlp"
    return "other"


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
            raise UserError(
                place="layers", value=text, expected="layers and ranges of layers, such as 0-3 or 0,2,5-7"
            )
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
        raise UserError(f"layers {text} include layer {beyond[0]}, but the model has {have}", place=where)


def in_region(name: str, region: Region, layers: str | None = None) -> bool:
    """Whether the parameter `name` belongs to `region`, and to one of `layers` where these are given.

    layers: everything within the transformer layers but their norms, biases of the projections included
    (the paper's "transformer" region); attention, mlp: those blocks of the layers without norms;
    embeddings: input, position and output embeddings, without the final norm; all: every parameter.
    layers: as `layer_numbers` reads them; what is outside the transformer layers is then in no region.

    Raises UserError for an unknown region, which would hold nothing.
    """
    if region not in get_args(Region):
        raise UserError(
            f"region {region!r} is unknown", value=region, expected=f"one of {', '.join(get_args(Region))}"
        )
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
