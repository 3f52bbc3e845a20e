"""Headers of safetensors files: which tensors a file holds, and where."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

from sftlab.errors import UserError
from sftlab.weights.bits import item_bytes

_LARGEST_HEADER = 100_000_000
_LARGEST_NUMBER = 2**48  # of a dimension or an offset; more would be a petabyte


@dataclass(frozen=True)
class Place:
    """Where a tensor is: its shard, and its first byte in it."""

    shard: Path
    code: str
    shape: tuple[int, ...]
    start: int

    @property
    def numel(self) -> int:
        return prod(self.shape)

    @property
    def nbytes(self) -> int:
        return self.numel * item_bytes(self.code)


def read_header(shard: Path, whole: bool = True) -> tuple[bytes, dict[str, Place]]:
    """The header of a safetensors file, as it is stored, and the tensors that it names.

    The tensors are checked against the file's size, so that a cut-off file is refused here; not so where something
    else than the `whole` data follows the header.
    """
    try:
        with shard.open("rb") as file:
            there = os.fstat(file.fileno()).st_size
            start = file.read(8)
            length = int.from_bytes(start, "little")
            if there < 8 or length > min(_LARGEST_HEADER, there - 8):
                raise UserError("is truncated or no safetensors file", place=shard, advice="fetch it again.")
            text = file.read(length)
            header = json.loads(text)
    except OSError as error:
        raise UserError(f"cannot be read: {error.strerror}", place=shard) from error
    except (ValueError, RecursionError) as error:
        raise UserError(
            f"its header is damaged ({error})", place=shard, advice="fetch the file again."
        ) from error
    if not isinstance(header, dict):
        raise UserError("its header is damaged", place=shard, advice="fetch the file again.")
    header.pop("__metadata__", None)
    places = {name: _place(shard, name, entry, 8 + length) for name, entry in header.items()}
    end = _gapless_end(shard, places, 8 + length)
    if whole and end != there:
        state = "truncated" if there < end else "damaged"
        raise UserError(
            f"is {state}: {there} bytes where its header says {end}",
            place=shard,
            advice="fetch the file again.",
        )
    return start + text, places


def in_data_order(places: Mapping[str, Place]) -> list[str]:
    """The names of the tensors of one file as their data follow each other."""
    return sorted(places, key=lambda name: (places[name].start, places[name].nbytes))


def _gapless_end(shard: Path, places: Mapping[str, Place], start: int) -> int:
    """Where the last tensor ends, if the first begins at `start`."""
    end = start
    for name in in_data_order(places):
        place = places[name]
        if place.start != end:
            raise UserError(
                f"{name} begins at byte {place.start} where {end} was expected",
                place=shard,
                advice="tensors have no gaps and do not overlap, so the file is damaged; fetch it again.",
            )
        end += place.nbytes
    return end


def _place(shard: Path, name: str, entry: Any, data: int) -> Place:
    try:
        code, shape, (start, stop) = entry["dtype"], tuple(entry["shape"]), entry["data_offsets"]
        numbers = (*shape, start, stop)
        sound = all(type(number) is int and 0 <= number < _LARGEST_NUMBER for number in numbers)
        place = Place(shard, code, shape if sound else (), data + start)
        sound = sound and place.nbytes == stop - start
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(
            f"its entry for {name} is damaged or of an unknown type ({error})", place=shard
        ) from error
    if not sound:
        raise UserError(
            f"the size of {name} does not fit its shape", place=shard, advice="fetch the file again."
        )
    return place
