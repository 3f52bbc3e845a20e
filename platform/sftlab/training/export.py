"""A trained engine as a plain Hugging Face folder: the base model's files, names, dtypes and ties.

Tensors are gathered, written and dropped one at a time, whatever the ZeRO stage: no rank ever holds the
whole model, and rank 0 never holds a whole shard.
"""

from __future__ import annotations

import json
import os
import struct
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sftlab.store.record import PART
from sftlab.training.hf_model import adapted_layers, tensor_files, weight_files
from sftlab.training.records import Form
from sftlab.training.small_export import adapted_modules, export_adapter, export_delta
from sftlab.training.stored_tensors import Homes, Part, assembled, by_parameter
from sftlab.training.stored_values import finite, stored_bytes
from sftlab.weights.companions import companions, copy_files
from sftlab.weights.shards import DELTA_FILE

if TYPE_CHECKING:
    import torch

    Reader = Callable[[], torch.Tensor]


def read_header(file: Path) -> tuple[bytes, dict[str, Any]]:
    """The raw header of a safetensors file, its 8 length bytes included, and its parsed form."""
    with file.open("rb") as stream:
        length = stream.read(8)
        text = stream.read(struct.unpack("<Q", length)[0])
    return length + text, json.loads(text)


def rewrite_file(
    base_file: Path, output: Path | None, value_of: Callable[[str, Reader], torch.Tensor | None]
) -> None:
    """Write a copy of `base_file` in which tensor `name` holds value_of(name, read), read() being the base's.

    None as a value keeps the base's tensor. The header is the base file's own, byte for byte, so names,
    shapes, dtypes and order are kept; values are rounded to the base's dtype. All ranks call this, since
    `value_of` may be collective; those with `output` None write nothing.
    """
    from safetensors import safe_open

    raw, header = read_header(base_file)
    entries = {name: entry for name, entry in header.items() if name != "__metadata__"}
    with (
        safe_open(base_file, framework="pt") as base,
        nullcontext() if output is None else output.open("wb") as stream,
    ):
        if stream is not None:
            stream.write(raw)
        for name in sorted(entries, key=lambda name: tuple(entries[name]["data_offsets"])):
            read = partial(base.get_tensor, name)
            value = value_of(name, read)
            if stream is not None:
                stream.write(stored_bytes(read() if value is None else value, entries[name]))


def full_value(parameter: torch.Tensor, engine: Any, want_float32: bool) -> torch.Tensor:
    """The whole value of one parameter on every rank, from any ZeRO stage (a collective operation).

    `want_float32` takes the optimiser's float32 weights where the model's own are bf16.
    """
    import deepspeed
    import torch
    from deepspeed.utils import safe_get_full_fp32_param

    if want_float32 and parameter.dtype != torch.float32:
        master = float32_of_stage0(parameter, engine)
        value: torch.Tensor = safe_get_full_fp32_param(parameter) if master is None else master
        return value
    with deepspeed.zero.GatheredParameters([parameter]):
        return parameter.detach().clone()


def float32_of_stage0(parameter: Any, engine: Any) -> torch.Tensor | None:
    """The float32 weights that DeepSpeed's bf16 optimizer of stage 0 keeps with a parameter."""
    optimizer = engine.optimizer
    master: torch.Tensor
    if not hasattr(optimizer, "fp16_groups") or not hasattr(optimizer, "fp32_groups"):
        return None
    for half, full in zip(optimizer.fp16_groups, optimizer.fp32_groups, strict=True):
        for mine, master in zip(half, full, strict=True):
            if mine is parameter:
                return master.detach()
    return None


def keep_float32_base(engine: Any, base: Path, places: Homes, rank: int) -> None:
    """Start the optimiser's float32 weights from the base's float32 ones instead of their bf16 roundings.

    Otherwise rounding alone would change every weight of a float32 base by up to 0.4%, far more than
    fine-tuning does. Does nothing for a bf16 base or a float32 run.
    """
    import torch
    from safetensors import safe_open

    files = tensor_files(base)

    def read(name: str) -> torch.Tensor:
        with safe_open(files[name], framework="pt") as handle:
            tensor: torch.Tensor = handle.get_tensor(name)
        return tensor

    def is_float32(name: str) -> bool:
        with safe_open(files[name], framework="pt") as handle:
            return bool(handle.get_slice(name).get_dtype() == "F32")

    for parameter, parts in by_parameter(places):
        if parameter.dtype == torch.float32 or not parameter.requires_grad:
            continue
        if all(is_float32(name) for name, _ in parts):
            _set_float32(engine, parameter, assembled(parameter, parts, read).to(parameter.device), rank)


def _set_float32(engine: Any, parameter: Any, value: torch.Tensor, rank: int) -> None:
    """Make `value` what the optimiser's float32 weights of a parameter hold, from any ZeRO stage."""
    import torch
    from deepspeed.utils import safe_get_local_fp32_param, safe_set_full_fp32_param

    master = float32_of_stage0(parameter, engine)
    with torch.no_grad():
        if master is not None:
            master.copy_(value)
        elif hasattr(parameter, "ds_id"):
            # DeepSpeed's own setter fails where a tensor does not divide by the number of ranks.
            mine = safe_get_local_fp32_param(parameter).view(-1)
            part = value.reshape(-1)[rank * mine.numel() : (rank + 1) * mine.numel()]
            mine[: part.numel()].copy_(part)
        else:
            safe_set_full_fp32_param(parameter, value)


def lora_delta(layer: Any) -> torch.Tensor:
    """(alpha / r) B A in float32, in the orientation of the layer's weight (a collective operation).

    On the CPU, where an adapter that is kept as one is merged too.
    """
    import deepspeed

    (name,) = layer.lora_A.keys()
    a, b = layer.lora_A[name].weight, layer.lora_B[name].weight
    with deepspeed.zero.GatheredParameters([a, b]):
        delta: torch.Tensor = (b.detach().float().cpu() @ a.detach().float().cpu()) * layer.scaling[name]
    return delta.T if layer.fan_in_fan_out else delta


class _Values:
    """Whole values of parameters, of which several stored tensors take parts one after another.

    Experts are stored in turns of two stacked parameters; so many are kept.
    """

    def __init__(self, engine: Any) -> None:
        self._engine = engine
        self._kept: dict[tuple[int, bool], torch.Tensor] = {}

    def of(self, name: str, parameter: Any, want_float32: bool) -> torch.Tensor:
        """The value, finite; `name` is that of a message (a collective operation)."""
        key = (id(parameter), want_float32)
        if key not in self._kept:
            while len(self._kept) > 1:
                del self._kept[next(iter(self._kept))]
            self._kept[key] = finite(name, full_value(parameter, self._engine, want_float32))
        return self._kept[key]

    def stored(self, name: str, parts: Sequence[Part], shape: Sequence[int], float32: bool) -> torch.Tensor:
        """The value of the stored tensor `name` of this shape (a collective operation)."""
        import torch

        if len(parts) == 1 and parts[0].stored is None:
            (part,) = parts
            if part.place is None:
                return finite(name, full_value(part.parameter, self._engine, float32))
            return part.in_parameter(self.of(name, part.parameter, float32))
        whole: torch.Tensor | None = None
        for part in parts:
            value = self.of(name, part.parameter, float32)
            if whole is None:
                whole = torch.empty(tuple(shape), dtype=value.dtype, device=value.device)
            part.in_stored(whole).copy_(part.in_parameter(value))
        assert whole is not None
        return whole


def export(engine: Any, base: Path, places: Homes, output: Path, rank: int, form: Form = "folder") -> None:
    """Write the engine's model to `output`; all ranks call this together. `places` is stored_tensors.homes(...).

    Without LoRA every parameter that trains is the trained one. With LoRA the adapted layers hold the base's
    stored weight plus the update, computed in float32. Every other tensor is the base's, bit for bit.
    form: a folder, or what is read as that folder: a delta, or with LoRA the adapter.
    Raises DivergedError where a trained weight is not finite.
    """
    adapted = {id(layer.base_layer.weight): layer for layer in adapted_layers(engine.module)}
    values = _Values(engine)

    def value_of(name: str, read: Reader, float32: bool, shape: Sequence[int]) -> torch.Tensor | None:
        parts = places.get(name, ())
        if adapted:
            return _with_updates(name, parts, adapted, read, rank)
        if not any(part.parameter.requires_grad for part in parts):
            return None
        return values.stored(name, parts, shape, float32)

    if rank == 0:
        output.mkdir(parents=True, exist_ok=True)
    if form == "delta":
        modules = adapted_modules(engine.module, places) if adapted else None
        if modules is not None:
            (config,) = engine.module.peft_config.values()
            export_adapter(config.to_dict(), modules, base, output, rank)
            return
        export_delta(
            base,
            output,
            rank,
            lambda name, read, place: value_of(name, read, place.code == "F32", place.shape),
        )
        return
    if rank == 0:
        (output / DELTA_FILE).unlink(missing_ok=True)  # begun in another form before
        copy_files(companions(base, index=True), output)
    for file in weight_files(base):
        _, header = read_header(file)

        def stored(name: str, read: Reader, header: dict[str, Any] = header) -> torch.Tensor | None:
            return value_of(name, read, header[name].get("dtype") == "F32", header[name].get("shape", ()))

        # Put in place whole, so that workers that outlive a killed driver cannot truncate a committed file.
        part = output / f"{file.name}{PART}"
        rewrite_file(file, part if rank == 0 else None, stored)
        if rank == 0:
            with part.open("rb") as written:
                os.fsync(written.fileno())
            part.replace(output / file.name)


def _with_updates(
    name: str, parts: Sequence[Part], adapted: Mapping[int, Any], read: Reader, rank: int
) -> torch.Tensor | None:
    """The base's stored tensor plus the updates of the adapted layers in it, in float32; None where there is none."""
    layers = [(part, adapted[id(part.parameter)]) for part in parts if id(part.parameter) in adapted]
    if not layers:
        return None
    value = read().float().contiguous() if rank == 0 else None
    for part, layer in layers:
        delta = finite(name, lora_delta(layer))
        if value is not None:
            part.in_stored(value).add_(part.in_parameter(delta))
    return value
