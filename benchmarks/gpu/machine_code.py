"""GPU machine code in a compiled library: of all architectures but one it can be blanked, and then packs to nothing."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass

MAGIC = struct.pack("<I", 0xBA55ED50)  # begins a fat binary: one program for several architectures
FORM = 1
HEADER, ENTRY = 16, 64  # bytes of the header of a fat binary, and the least of that of an entry
PTX, CODE = 1, 2
SMALL_PTX = 200_000  # bytes
FP8 = b"float_e4m3"


@dataclass(frozen=True)
class Entry:
    """One program for one architecture, such as 90 for sm_90: where its bytes are."""

    kind: int
    architecture: int
    start: int
    size: int


def fat_binaries(data: bytes) -> Iterator[list[Entry]]:
    """The entries of each fat binary in a file."""
    at = 0
    while (at := data.find(MAGIC, at)) >= 0:
        if at + HEADER > len(data):
            return
        _, form, header, size = struct.unpack_from("<IHHQ", data, at)
        end = at + header + size
        if form != FORM or header != HEADER or end > len(data):
            at += len(MAGIC)
            continue
        yield list(_entries(data, at + header, end))
        at = end


def _entries(data: bytes, at: int, end: int) -> Iterator[Entry]:
    while at + ENTRY <= end:
        kind, _, header, payload = struct.unpack_from("<HHIQ", data, at)
        (architecture,) = struct.unpack_from("<I", data, at + 28)
        start = at + header
        if header < 32 or start + payload > end:
            return
        yield Entry(kind, architecture, start, payload)
        at = start + payload


def blanked(data: bytes, architecture: int) -> bytes:
    """The file with zeros for other architectures' code, for PTX, and for FP8 kernels; offsets stay as they are.

    Small PTX of three programs without code for the architecture stays, for the driver compiles it.
    """
    kept = bytearray(data)
    for entries in fat_binaries(data):
        compiled = any(one.kind == CODE and one.architecture == architecture for one in entries)
        for one in entries:
            own = one.kind == CODE and one.architecture == architecture
            small = one.kind == PTX and not compiled and one.size < SMALL_PTX and len(entries) == 3
            body = slice(one.start, one.start + one.size)
            if not (own or small) or FP8 in data[body]:
                kept[body] = bytes(one.size)
    return bytes(kept)
