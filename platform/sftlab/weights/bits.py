"""Weights as raw bits: the dtypes of safetensors as numpy arrays, and their way to float32 and torch.

numpy has neither bfloat16 nor float8, so stretches of weights travel as unsigned integers of the same width:
they are compared, mixed and written as bits, and widened to float32 where they are ranked. numpy, not torch,
because it starts in a tenth of the time and its functions start no threads of their own.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from sftlab.weights.change import Floats

if TYPE_CHECKING:
    import torch

Raw = NDArray[Any]  # uint8, uint16, uint32 or uint64

# safetensors' name -> torch's name, bytes
_TYPES = {
    "BOOL": ("bool", 1),
    "U8": ("uint8", 1),
    "I8": ("int8", 1),
    "I16": ("int16", 2),
    "I32": ("int32", 4),
    "I64": ("int64", 8),
    "F8_E4M3": ("float8_e4m3fn", 1),
    "F8_E5M2": ("float8_e5m2", 1),
    "F16": ("float16", 2),
    "BF16": ("bfloat16", 2),
    "F32": ("float32", 4),
    "F64": ("float64", 8),
}
STORED_TYPES = tuple(_TYPES)  # the types that a checkpoint may store
_UNSIGNED = {1: np.uint8, 2: np.uint16, 4: np.uint32, 8: np.uint64}
_CODES = {name: code for code, (name, _) in _TYPES.items()}
_EXPONENT = {"BF16": 0x7F80, "F16": 0x7C00, "F32": 0x7F800000}
RANKED = tuple(_EXPONENT)  # the types that can be ranked


def item_bytes(code: str) -> int:
    """Bytes of one number of the safetensors type `code`. Raises KeyError for an unknown type."""
    return _TYPES[code][1]


def type_name(code: str) -> str:
    """What users call the type: bfloat16, float32, ..."""
    return _TYPES[code][0]


def raw_type(code: str) -> type[Any]:
    """The unsigned integer of the same width."""
    return _UNSIGNED[item_bytes(code)]


def torch_type(code: str) -> torch.dtype:
    import torch

    dtype: torch.dtype = getattr(torch, type_name(code))
    return dtype


def code_of(tensor: torch.Tensor) -> str:
    """The safetensors type of a tensor."""
    return _CODES[str(tensor.dtype).removeprefix("torch.")]


def raw_view(tensor: torch.Tensor) -> Raw:
    """The bits of a contiguous tensor, flattened; shares its memory."""
    import torch

    raw: Raw = tensor.detach().reshape(-1).view(torch.uint8).numpy()
    return raw.view(raw_type(code_of(tensor)))


def widen(raw: Raw, code: str, out: Floats) -> Floats:
    """The numbers whose bits are `raw` as float32, exactly. code: BF16, F16 or F32. out: float32 [n]."""
    if code == "BF16":
        bits = out.view(np.uint32)
        np.copyto(bits, raw)
        np.left_shift(bits, 16, out=bits)
    else:
        np.copyto(out, raw.view(np.float16 if code == "F16" else np.float32))
    return out


def is_finite(raw: Raw, code: str) -> bool:
    """Whether no number is NaN or infinite. code: BF16, F16 or F32."""
    exponent = _EXPONENT[code]
    return not raw.size or int(np.bitwise_and(raw, raw.dtype.type(exponent)).max()) < exponent
