"""Adapters of peft, read as the model that they make of their base: merged tensor by tensor while it is streamed.

A merged tensor has the bits that `PeftModel.from_pretrained(base, adapter).merge_and_unload()` gives in the base
model's type: the product of the two factors and its scaling in float32, added to the base and rounded once.
"""

from __future__ import annotations

import re
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import sqrt
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, Any

from sftlab.errors import UserError
from sftlab.store.mirror import pull
from sftlab.weights.bits import Raw, raw_view
from sftlab.weights.headers import read_header
from sftlab.weights.shards import (
    ADAPTER_CONFIG,
    ADAPTER_FILE,
    Checkpoint,
    has_weights,
    read_json_object,
)

if TYPE_CHECKING:
    import torch

MERGE = "merge it with merge_and_unload() of peft, and give the merged model's folder."
_NAME = re.compile(r"\^?[\w.-]{1,500}")  # of a module in a pattern; a quantifier could take an age to match
_FACTOR = re.compile(r"base_model\.model\.(.+)\.lora_([AB])\.weight")
# What makes another sum than base + scaling * B A of the base model's own weights.
_VARIANTS = (
    *("use_dora", "use_qalora", "use_bdlora", "lora_bias", "modules_to_save", "layer_replication"),
    *("trainable_token_indices", "target_parameters", "megatron_config", "arrow_config"),
    *("alora_invocation_tokens", "velora_config", "monteclora_config", "mica", "kasa_config"),
)
_PLAIN_STARTS = (
    None,
    True,
    False,
    "gaussian",
    "eva",
    "orthogonal",
)  # others change the base model's weights too
_KEPT = 2  # merged tensors in memory; readers go through the tensors in order


def is_adapter(folder: Path) -> bool:
    """Whether a folder holds an adapter and no model's weights."""
    path = pull(folder)
    return (path / ADAPTER_CONFIG).is_file() and not has_weights(path)


@dataclass(frozen=True)
class Update:
    """What an adapter adds to a tensor: scaling * B A, or its transpose where inputs are stored in rows."""

    a: str
    b: str
    scaling: float
    transposed: bool


class AdapterCheckpoint(Checkpoint):
    """A base model with an adapter, read as the merged model. Reads may come from several threads.

    Holds up to two merged tensors whole, as the bits of a product depend on the shapes of its factors.
    """

    def __init__(
        self, path: Path, base: Checkpoint, factors: Checkpoint, updates: Mapping[str, Update]
    ) -> None:
        self.factors = factors
        self._updates = dict(updates)
        self._merged: OrderedDict[str, torch.Tensor] = OrderedDict()
        self._merging = Lock()
        super().__init__(path, base.config, base.shards, base.places)

    def read_into(self, name: str, start: int, out: Raw) -> None:
        if name not in self._updates:
            super().read_into(name, start, out)
            return
        whole = raw_view(self._whole(name))
        out[:] = whole[start : start + out.size].view(out.dtype)

    def rename(self, names: Mapping[str, str]) -> None:
        super().rename(names)
        with self._merging:
            self._updates = {names.get(name, name): update for name, update in self._updates.items()}
            self._merged.clear()

    def close(self) -> None:
        super().close()
        self.factors.close()

    def _whole(self, name: str) -> torch.Tensor:
        with self._merging:
            found = self._merged.get(name)
            if found is None:
                found = self._merge(name)
                while len(self._merged) >= _KEPT:
                    self._merged.popitem(last=False)
            self._merged[name] = found
            self._merged.move_to_end(name)
            return found

    def _merge(self, name: str) -> torch.Tensor:
        import torch

        weight = torch.empty(self.shape(name), dtype=self.dtype(name))
        super().read_into(name, 0, raw_view(weight))
        update = self._updates[name]
        b, a = (self.factors.read(factor).float() for factor in (update.b, update.a))
        product = b @ a
        weight += (product.T if update.transposed else product) * update.scaling
        return weight


def open_adapter(folder: Path, base_folder: Path) -> AdapterCheckpoint:
    """Opens an adapter with its base model. Raises UserError for an adapter that is no plain LoRA of this base."""
    path = pull(folder)
    config = read_json_object(path / ADAPTER_CONFIG, "an adapter as peft saves it")
    _check_plain(path, config)
    file = path / ADAPTER_FILE
    if not file.is_file():
        raise UserError(
            f"has {ADAPTER_CONFIG} and no {ADAPTER_FILE}",
            place=path,
            expected="an adapter as peft saves it, in safetensors",
        )
    with Checkpoint.open(base_folder) as base:
        factors = Checkpoint(path, config, (file,), read_header(file)[1])
        try:
            return AdapterCheckpoint(path, base, factors, _updates(config, base, factors))
        except BaseException:
            factors.close()
            raise


def _check_plain(path: Path, config: Mapping[str, Any]) -> None:
    kind = config.get("peft_type")
    if kind != "LORA":
        raise UserError(
            f"is an adapter of type {kind}, and LORA alone is merged here", place=path, advice=MERGE
        )
    named = [field for field in _VARIANTS if config.get(field)]
    if config.get("bias", "none") != "none":
        named.append("bias")
    if config.get("init_lora_weights") not in _PLAIN_STARTS:
        named.append("init_lora_weights")
    if named:
        found = ", ".join(f"{field} = {config[field]!r}" for field in named)
        raise UserError(
            f"{found} changes more than a sum of matrices shows", place=path / ADAPTER_CONFIG, advice=MERGE
        )


def _updates(config: Mapping[str, Any], base: Checkpoint, factors: Checkpoint) -> dict[str, Update]:
    """What the adapter adds, by the base model's stored names."""
    pairs: dict[str, dict[str, str]] = {}
    for name in factors.names:
        found = _FACTOR.fullmatch(name)
        if found is None:
            raise UserError(
                f"holds {name}, which is no factor of a linear layer", place=factors.path, advice=MERGE
            )
        pairs.setdefault(found[1], {})[found[2]] = name
    updates: dict[str, Update] = {}
    for module, pair in pairs.items():
        if len(pair) < 2:
            raise UserError(
                f"holds one factor of {module} alone", place=factors.path, advice="copy the adapter again."
            )
        target = _stored_name(module, base, factors.path)
        updates[target] = _update(config, module, pair, base.shape(target), factors)
    if not updates:
        raise UserError("holds no tensors", place=factors.path, advice="copy the adapter again.")
    return updates


def _stored_name(module: str, base: Checkpoint, path: Path) -> str:
    """The stored tensor of a module's weight, with or without the prefix of the backbone."""
    wanted = f"{module}.weight"
    close = [wanted] if wanted in base.names else _close(wanted, base.names)
    if len(close) != 1:
        raise UserError(
            (
                f"adapts {module}, and {base.path} has no tensor {wanted}, or has it under another "
                "name or within another tensor"
            ),
            place=path,
            advice=f"give the adapter's own base model, or {MERGE}",
        )
    return close[0]


def _close(wanted: str, names: Sequence[str]) -> list[str]:
    return [name for name in names if wanted.endswith(f".{name}") or name.endswith(f".{wanted}")]


def _update(
    config: Mapping[str, Any],
    module: str,
    pair: Mapping[str, str],
    shape: tuple[int, ...],
    factors: Checkpoint,
) -> Update:
    a, b = factors.shape(pair["A"]), factors.shape(pair["B"])
    rank, alpha = (_of_module(config, field, module, factors.path) for field in ("r", "lora_alpha"))
    if len(a) != 2 or len(b) != 2 or a[0] != b[1] or a[0] != rank:
        raise UserError(
            (
                f"the factors of {module} have shapes {list(b)} and {list(a)}, and {ADAPTER_CONFIG} "
                f"says rank {rank:g}"
            ),
            place=factors.path,
            advice="copy the adapter again.",
        )
    made = (b[0], a[1])
    if shape not in (made, made[::-1]):
        raise UserError(
            f"the update of {module} has shape {list(made)}, and the base model's tensor has {list(shape)}",
            place=factors.path,
            advice="give the base model that the adapter was trained on.",
        )
    square = made[0] == made[1]
    transposed = bool(config.get("fan_in_fan_out")) if square else shape != made
    return Update(
        pair["A"], pair["B"], alpha / (sqrt(rank) if config.get("use_rslora") else rank), transposed
    )


def _of_module(config: Mapping[str, Any], field: str, module: str, path: Path) -> float:
    """`r` or `lora_alpha` of a module: by the first pattern that its name ends with, as in peft, or of all."""
    named = {"r": "rank_pattern", "lora_alpha": "alpha_pattern"}[field]
    patterns = config.get(named) or {}
    if not isinstance(patterns, Mapping) or not all(_NAME.fullmatch(key) for key in patterns):
        raise UserError(f"{named} has more than names of modules", place=path / ADAPTER_CONFIG, advice=MERGE)
    found = next((key for key in patterns if re.match(rf"(.*\.)?({key})$", module)), None)
    value = config.get(field) if found is None else patterns[found]
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < 2**31:
        raise UserError(
            f"{field} of {module} is no positive number",
            place=path / ADAPTER_CONFIG,
            advice="copy the adapter again.",
        )
    return value
