"""Causal language models of every family that transformers ships, without data, and what their classes say."""

from __future__ import annotations

import re
from typing import Any

import torch

_LAYERS = ("num_hidden_layers", "n_layer", "num_layers", "n_layers", "num_blocks")
_ATTENTION = re.compile(r"Attention|MLA$|Attn|MoA$")
_MLP = re.compile(r"MLP|MoE|Moe|Experts?$|FeedForward|FFN|Ffn")
_TOWER = re.compile(r"Vision|Audio|Siglip|Clip")


def without_data(kind: str) -> Any:
    """The model of a family's default configuration with two layers, on the meta device."""
    import transformers

    config = transformers.CONFIG_MAPPING[kind]()
    for field in _LAYERS:
        if isinstance(getattr(config, field, None), int):
            setattr(config, field, 2)
    with torch.device("meta"):
        model = transformers.AutoModelForCausalLM.from_config(config)
    model.tie_weights()
    return model


def by_classes(model: Any, name: str) -> tuple[int | None, str | None]:
    """Layer and block of a parameter from the classes of the modules around it; the block None where they say none.

    A layer is an item of a list whose class is named a layer or a block. Names of modules decide nothing.
    """
    modules = dict(model.named_modules())
    parts = name.split(".")[:-1]
    path = [modules[".".join(parts[: depth + 1])] for depth in range(len(parts))]
    kinds = [type(module).__name__ for module in path]
    at = next(
        (
            depth
            for depth in range(1, len(path))
            if kinds[depth - 1] == "ModuleList" and re.search("(Layer|Block)$", kinds[depth])
        ),
        None,
    )
    if any(_TOWER.search(kind) for kind in kinds):
        at = None
    layer = None if at is None else int(parts[at])
    if kinds and "Norm" in kinds[-1] and not list(path[-1].children()):
        return layer, "norm"
    if at is None:
        return None, None
    family = re.sub("(For|LMHead).*", "", type(model).__name__)
    for kind in kinds[at + 1 :]:
        rest = kind.removeprefix(family)
        if _ATTENTION.search(rest):
            return layer, "attention"
        if _MLP.search(rest):
            return layer, "mlp"
    return layer, None
