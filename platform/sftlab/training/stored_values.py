"""The values of trained tensors, as files store them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sftlab.training.records import DivergedError

if TYPE_CHECKING:
    import torch


def stored_bytes(tensor: torch.Tensor, entry: dict[str, Any]) -> memoryview:
    """A tensor's values as safetensors stores them (row-major, little-endian) in the header entry's dtype."""
    import torch

    assert list(tensor.shape) == entry["shape"], (list(tensor.shape), entry)
    kinds = {"F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}
    cast = tensor.detach().cpu().to(kinds.get(entry["dtype"], tensor.dtype)).contiguous()
    return cast.flatten().view(torch.uint8).numpy().data


def finite(name: str, value: torch.Tensor) -> torch.Tensor:
    """The value itself. Raises DivergedError, on all ranks alike, where it holds NaN or infinities."""
    if not bool(value.isfinite().all()):
        raise DivergedError(f"{name} is not finite after the last step", value=name)
    return value
