"""Lossless deltas of weights: a stretch of a tuned tensor as its difference to the same stretch of the base.

The bits of a floating-point number become an integer that grows with the number, so that neighbouring numbers are
neighbouring integers. Base and tuned are subtracted modulo 2^width, which is exact for every bit pattern: NaN
payloads, infinities, subnormal numbers and -0 included. Zig-zag turns small differences of either sign into small
unsigned integers. They are sorted by the exponent of the base, which the reader knows: numbers of one exponent have
one spacing, so each run of equal exponents has one narrow distribution. The bytes of equal significance form a
plane, and zstd compresses each run of a plane by itself.

A record is one encoded stretch of at most DELTA_CHUNK numbers:

    kind      uint8    SAME, DELTA or WHOLE
    checksum  uint32   CRC-32 of the restored bytes
    lengths   uint32 for each frame; none for SAME
    frames    zstd, or the bytes themselves where the length is that of the plane's run

DELTA splits every plane but the most significant one, which is nearly constant, at the ends of `runs`. WHOLE has
one frame for each plane of the tuned numbers themselves.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sftlab.weights.bits import Raw, item_bytes

# Numbers of a record. Equal to stream.CHUNK, so that a walk over two models decodes each record once.
DELTA_CHUNK = 1 << 18
SAME, DELTA, WHOLE = 0, 1, 2

_HEAD = struct.Struct("<BI")
_LEVEL = 1  # of zstd; higher levels gain below 1 % and take several times as long
_SHORTEST_RUN = 8192  # numbers; shorter runs of equal exponents are compressed with the next one
_ALL_EXPONENTS = np.arange(256, dtype=np.uint8)
_EXPONENTS = {"BF16": (7, 0xFF), "F16": (10, 0x1F), "F32": (23, 0xFF)}  # lowest bit, mask


class DeltaError(ValueError):
    """A record is damaged, or it was made from another base."""


def encode(tuned: Raw, base: Raw | None, code: str) -> bytes:
    """The record of the numbers whose bits are `tuned`; `base` are those of the base model, if it has them.

    tuned, base: contiguous unsigned integers of the type's width, of equal size, at most DELTA_CHUNK.
    code: the type as safetensors names it. Types other than BF16, F16 and F32 are kept whole unless equal.
    """
    assert 0 < tuned.size <= DELTA_CHUNK and tuned.itemsize == item_bytes(code)
    checksum = zlib.crc32(tuned.data)
    if base is not None:
        assert base.dtype == tuned.dtype and base.size == tuned.size
        if np.array_equal(base, tuned):
            return _HEAD.pack(SAME, checksum)
        if code in _EXPONENTS:
            order, ends = _by_exponent(base, code)
            difference = _zigzag(_ordered(tuned) - _ordered(base))
            return _packed(DELTA, checksum, difference[order], ends)
    return _packed(WHOLE, checksum, tuned, [[tuned.size]] * tuned.itemsize)


def decode(record: bytes, base: Raw | None, code: str, out: Raw) -> None:
    """Fills `out` with the bits that `encode` was given; `base` is the same as there.

    Raises DeltaError where the record is damaged or another base is given. Allocates a few times the size of `out`,
    whatever the record says.
    """
    assert 0 < out.size <= DELTA_CHUNK and out.itemsize == item_bytes(code)
    assert base is None or (base.dtype == out.dtype and base.size == out.size)
    if len(record) < _HEAD.size:
        raise DeltaError(f"it has {len(record)} bytes; expected at least {_HEAD.size}")
    kind, checksum = _HEAD.unpack_from(record)
    if kind not in (SAME, DELTA, WHOLE):
        raise DeltaError(f"its kind is {kind}; expected {SAME}, {DELTA} or {WHOLE}")
    if kind == WHOLE:
        out[:] = _unpacked(record, out.dtype, [[out.size]] * out.itemsize)
    elif base is None:
        raise DeltaError("it needs a tensor of the base model")
    elif kind == SAME:
        if len(record) != _HEAD.size:
            raise DeltaError(f"it has {len(record)} bytes; expected {_HEAD.size}")
        out[:] = base
    elif code not in _EXPONENTS:
        raise DeltaError(f"its kind is {kind}, which is not for {code}")
    else:
        order, ends = _by_exponent(base, code)
        out[order] = _unpacked(record, out.dtype, ends)
        out[:] = _ordered(_ordered(base) + _unzigzag(out))
    if zlib.crc32(out.data) != checksum:
        raise DeltaError("its checksum differs from that of the restored weights")


def runs(exponents: NDArray[np.uint8]) -> list[int]:
    """Where the runs of equal exponents end. A run of fewer than _SHORTEST_RUN numbers takes in the next one.

    exponents: sorted, at least one.
    """
    ends, start = [], 0
    for end in np.unique(np.searchsorted(exponents, _ALL_EXPONENTS, side="right")).tolist():
        if end - start >= _SHORTEST_RUN:
            ends.append(end)
            start = end
    if start < exponents.size:
        ends[max(len(ends) - 1, 0) :] = [exponents.size]
    return ends


def _by_exponent(base: Raw, code: str) -> tuple[NDArray[np.intp], list[list[int]]]:
    """The stable order by the exponents of the base, and where the frames of each plane end in it."""
    lowest, mask = _EXPONENTS[code]
    exponents: NDArray[np.uint8] = ((base >> lowest) & mask).astype(np.uint8)
    order = np.argsort(exponents, kind="stable")
    return order, [runs(exponents[order])] * (base.itemsize - 1) + [[base.size]]


def _signed(raw: Raw) -> tuple[NDArray[Any], int]:
    """The bits as signed integers, and the number of the sign bit."""
    return raw.view(f"i{raw.itemsize}"), 8 * raw.itemsize - 1


def _ordered(raw: Raw) -> Raw:
    """Integers that grow with the number: below a set sign bit all others are inverted. Its own inverse."""
    signed, sign = _signed(raw)
    below: Raw = ((signed >> sign) & ((1 << sign) - 1)).view(raw.dtype)
    below ^= raw
    return below


def _zigzag(difference: Raw) -> Raw:
    """0, -1, 1, -2, 2 ... as 0, 1, 2, 3, 4 ..."""
    signed, sign = _signed(difference)
    folded: Raw = ((signed << 1) ^ (signed >> sign)).view(difference.dtype)
    return folded


def _unzigzag(folded: Raw) -> Raw:
    sign = np.negative(folded & 1)
    sign ^= folded >> 1
    unfolded: Raw = sign
    return unfolded


def _packed(kind: int, checksum: int, values: Raw, ends: Sequence[Sequence[int]]) -> bytes:
    """A record of the planes of `values`, least significant first; `ends`: where the frames of each plane end."""
    from pyarrow import Codec

    codec = Codec("zstd", compression_level=_LEVEL)
    planes = values.view(np.uint8).reshape(values.size, values.itemsize)
    frames = []
    for number, stops in enumerate(ends):
        plane = np.ascontiguousarray(planes[:, number])
        for start, stop in _spans(stops):
            run = plane[start:stop]
            frame = codec.compress(run, asbytes=True)
            frames.append(frame if len(frame) < run.size else run.tobytes())
    lengths = struct.pack(f"<{len(frames)}I", *map(len, frames))
    return b"".join((_HEAD.pack(kind, checksum), lengths, *frames))


def _unpacked(record: bytes, dtype: np.dtype[Any], ends: Sequence[Sequence[int]]) -> Raw:
    """The values of `_packed`. All lengths are checked before anything is decompressed."""
    from pyarrow import Codec

    count = sum(map(len, ends))
    at = _HEAD.size + 4 * count
    if len(record) < at:
        raise DeltaError(f"it has {len(record)} bytes; expected at least {at} for {count} frames")
    lengths = struct.unpack_from(f"<{count}I", record, _HEAD.size)
    if sum(lengths) != len(record) - at:
        raise DeltaError(f"its frames have {sum(lengths)} bytes; {len(record) - at} are there")
    codec = Codec("zstd")
    planes = np.empty((ends[0][-1], dtype.itemsize), np.uint8)
    frame_lengths = iter(lengths)
    for number, stops in enumerate(ends):
        for start, stop in _spans(stops):
            length = next(frame_lengths)
            planes[start:stop, number] = _frame(codec, record[at : at + length], stop - start)
            at += length
    return planes.reshape(-1).view(dtype)


def _frame(codec: Any, frame: bytes, size: int) -> NDArray[np.uint8]:
    if len(frame) > size:
        raise DeltaError(f"a frame of {len(frame)} bytes is longer than the {size} bytes that it holds")
    if len(frame) == size:
        return np.frombuffer(frame, np.uint8)
    try:
        found = codec.decompress(frame, decompressed_size=size)
    except (OSError, ValueError) as error:
        raise DeltaError(f"a frame is no zstd of {size} bytes") from error
    if len(found) != size:
        raise DeltaError(f"a frame holds {len(found)} bytes; expected {size}")
    return np.frombuffer(found, np.uint8)


def _spans(stops: Sequence[int]) -> Iterator[tuple[int, int]]:
    return zip((0, *stops[:-1]), stops, strict=True)
