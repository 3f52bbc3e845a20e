"""A trained engine in a small form, which is read as if it were the model's folder: a delta to its base, or an adapter.

The delta is written tensor by tensor, as the folder would be, so that no full copy comes to the disk.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from sftlab.files import write_text
from sftlab.store.record import PART
from sftlab.training.hf_model import weight_files
from sftlab.training.stored_tensors import Homes
from sftlab.training.stored_values import finite, stored_bytes
from sftlab.weights.bits import Raw, raw_type
from sftlab.weights.companions import companions, copy_files
from sftlab.weights.headers import Place, in_data_order, read_header
from sftlab.weights.packing import DeltaWriter, check_restored
from sftlab.weights.shards import ADAPTER_CONFIG, ADAPTER_FILE, DELTA_FILE, Checkpoint

if TYPE_CHECKING:
    import torch

    Reader = Callable[[], torch.Tensor]

STAGING = ".packed"
_PREFIX = "base_model.model."  # of peft's modules


def export_delta(
    base: Path, output: Path, rank: int, value_of: Callable[[str, Reader, Place], torch.Tensor | None]
) -> None:
    """Write a model as the delta to its base into `output`; all ranks call this together, and rank 0 writes.

    value_of: the value of a stored tensor, or None for the base's; it may be collective. The result is read back before
    it is put in place.
    """
    from safetensors import safe_open

    if rank != 0:
        for file in weight_files(base):
            places = read_header(file)[1]
            with safe_open(file, framework="pt") as stored:
                for name in in_data_order(places):
                    value_of(name, partial(stored.get_tensor, name), places[name])
        return
    staging = output / STAGING
    shutil.rmtree(staging, ignore_errors=True)  # of a worker that was killed
    staging.mkdir(parents=True)
    with Checkpoint.open(base) as opened:
        writer = DeltaWriter(staging, opened)
        for file in weight_files(base):
            header, places = read_header(file)
            with (
                safe_open(file, framework="pt") as stored,
                writer.file(file.name, header, places),
            ):
                for name in in_data_order(places):
                    read = partial(stored.get_tensor, name)
                    value = value_of(name, read, places[name])
                    writer.add(name, partial(_fill, _bits(read() if value is None else value, places[name])))
        writer.finish()
    copy_files(companions(base, index=True), staging)
    check_restored(staging, base)
    written = sorted(
        staging.iterdir(), key=lambda file: file.name == DELTA_FILE
    )  # which makes it a model: last
    for file in written:
        file.replace(output / file.name)
    staging.rmdir()
    for whole in output.glob("*.safetensors"):  # begun in another form before
        whole.unlink()


def _bits(value: torch.Tensor, place: Place) -> Raw:
    """A tensor's numbers as they are stored in the form of `place`."""
    found: Raw = np.frombuffer(
        stored_bytes(value, {"dtype": place.code, "shape": list(place.shape)}), raw_type(place.code)
    )
    return found


def _fill(bits: Raw, start: int, out: Raw) -> None:
    out[:] = bits[start : start + out.size]


def adapted_modules(model: Any, places: Homes) -> dict[str, Any] | None:
    """The adapted layers of a model by the names of their modules.

    None where there is none, and where a reader would not find what one of them adapts: a whole stored tensor under
    the module's name.
    """
    found = {
        name.removeprefix(_PREFIX): module
        for name, module in model.named_modules()
        if getattr(module, "lora_A", None)
    }
    stored: dict[int, list[str]] = {}
    for name, parts in places.items():
        for part in parts:
            whole = len(parts) == 1 and part.place is None and part.stored is None
            stored.setdefault(id(part.parameter), []).append(name if whole else "")
    plain = all(stored.get(id(m.base_layer.weight)) == [f"{name}.weight"] for name, m in found.items())
    return found if found and plain else None


def export_adapter(
    config: Mapping[str, Any], modules: Mapping[str, Any], base: Path, output: Path, rank: int
) -> None:
    """Write the adapters of the modules into `output` as peft does; all ranks call this together, rank 0 writes.

    config: of peft. Raises DivergedError for infinite factors.
    """
    import deepspeed
    from safetensors.torch import save_file

    tensors = {}
    for name, module in modules.items():
        for kind in ("lora_A", "lora_B"):
            (layer,) = getattr(module, kind).values()
            with deepspeed.zero.GatheredParameters([layer.weight]):
                value = layer.weight.detach().cpu().clone()
            tensors[f"{_PREFIX}{name}.{kind}.weight"] = finite(f"{name}.{kind}", value).contiguous()
    if rank != 0:
        return
    copy_files(companions(base), output)
    part = output / f"{ADAPTER_FILE}{PART}"
    save_file(tensors, part, metadata={"format": "pt"})
    with part.open("rb") as written:
        os.fsync(written.fileno())
    part.replace(output / ADAPTER_FILE)
    write_text(output / ADAPTER_CONFIG, json.dumps(adapter_config(config), indent=1))
    for whole in output.glob("model*.safetensors*"):  # begun in another form before
        whole.unlink()


def adapter_config(config: Mapping[str, Any]) -> dict[str, Any]:
    """What a reader of an adapter needs of peft's configuration, without paths of this machine."""
    names = ("peft_type", "task_type", "r", "lora_alpha", "lora_dropout", "bias", "fan_in_fan_out")
    kept = {name: config[name] for name in names}
    kept["peft_type"] = getattr(kept["peft_type"], "value", kept["peft_type"])
    return {
        **kept,
        "base_model_name_or_path": None,
        "inference_mode": True,
        "target_modules": sorted(config["target_modules"]),
    }
