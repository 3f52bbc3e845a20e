"""Packed folders: a tuned model as the lossless delta to its base model, read as if it were the model's folder.

A packed folder holds

    weights.delta.json   DELTA_FILE: what is packed, and how to know that it was restored (below)
    model*.delta         for each safetensors file its header, byte for byte, and the records of `delta.encode` for
                         its tensors in the order of their data
    config.json ...      configuration and tokenizer, as they are

    {"format": "sftlab.delta", "version": 1,
     "files": {"model.safetensors": {
         "sha256": of the restored file,
         "tensors": {"lm_head.weight": {"base": SHA-256 of the base model's tensor, or null where the tensor is kept
                                                whole because the base model lacks it in this type and shape,
                                        "records": [bytes of each record]}}}}}

A packed folder is data from outside. All sizes are checked against the files and against the base model before
anything is read by them; a record restores at most DELTA_CHUNK numbers.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from hashlib import sha256
from itertools import accumulate
from pathlib import Path
from typing import Any

import numpy as np

from sftlab.errors import UserError
from sftlab.store.mirror import pull
from sftlab.weights.adapter import is_adapter, open_adapter
from sftlab.weights.bits import Raw, raw_type
from sftlab.weights.delta import DELTA_CHUNK, DeltaError, decode
from sftlab.weights.headers import Place, in_data_order, read_header
from sftlab.weights.shards import (
    DELTA_FILE,
    Checkpoint,
    read_json_object,
)
from sftlab.weights.stream import in_order

FORMAT, VERSION = "sftlab.delta", 1
SAFETENSORS, DATA = ".safetensors", ".delta"
_HASH = re.compile(r"[0-9a-f]{64}")
_LARGEST_FRAMING = 1024  # bytes of a record beyond those of its numbers: head, lengths, nothing else
_STRETCH = 1 << 20

Folder = str | os.PathLike[str]


@dataclass(frozen=True)
class PackedTensor:
    """Where the records of a tensor are in its data file, and the hash of the base tensor if it needs one."""

    ends: tuple[int, ...]  # where the first record begins, and where each ends
    base: str | None


@dataclass(frozen=True)
class PackedFile:
    """A packed safetensors file: its name, its data file, and what the two hold."""

    name: str
    data: Path
    header: bytes
    sha256: str
    places: Mapping[str, Place]
    tensors: Mapping[str, PackedTensor]

    @property
    def nbytes(self) -> int:
        """Bytes of the restored file."""
        return len(self.header) + sum(place.nbytes for place in self.places.values())


def is_packed(folder: Folder) -> bool:
    return (pull(Path(folder)) / DELTA_FILE).is_file()


def open_tuned(tuned: Folder, base: Folder) -> Checkpoint:
    """A model tuned from `base`: a plain folder (which needs no base), a packed one, or an adapter, which is merged.

    Raises UserError as `Checkpoint.open` and `open_adapter`, and for a packed folder that is damaged or of another base
    model.
    """
    if is_packed(tuned):
        return open_packed(tuned, base)
    if is_adapter(Path(tuned)):
        return open_adapter(Path(tuned), Path(base))
    return Checkpoint.open(tuned)


def open_packed(folder: Folder, base: Folder) -> PackedCheckpoint:
    """Opens a packed folder and its base model. Raises UserError that names the file and the tensor."""
    path = pull(Path(folder))
    config = read_json_object(path / "config.json", "a packed model folder with its config.json")
    files = read_packed_files(path)
    opened = Checkpoint.open(base)
    try:
        for file in files.values():
            _check_base(path, file, opened)
        return PackedCheckpoint(path, config, files, opened)
    except BaseException:
        opened.close()
        raise


class PackedCheckpoint(Checkpoint):
    """A packed folder with its base model. Whatever is read is restored and checked, record by record.

    Reads may come from several threads. A stretch that begins or ends within a record restores the whole record.
    """

    def __init__(
        self, path: Path, config: dict[str, Any], files: Mapping[str, PackedFile], base: Checkpoint
    ) -> None:
        self.base = base
        self.packed_files = files
        # Two files may hold one tensor, with the same contents, as shards may.
        self._holders = {name: file for file in files.values() for name in file.tensors}
        self._packed_names = {name: name for name in self._holders}
        places = {name: file.places[name] for name, file in self._holders.items()}
        super().__init__(path, config, tuple(file.data for file in files.values()), places)

    def read_into(self, name: str, start: int, out: Raw) -> None:
        size = self.numel(name)
        stop = start + out.size
        assert out.dtype == raw_type(self.code(name)) and stop <= size
        name = self._packed_names[name]
        for first in range(start - start % DELTA_CHUNK, stop, DELTA_CHUNK):
            last = min(first + DELTA_CHUNK, size)
            begin, end = max(first, start), min(last, stop)
            if begin == end:
                continue
            part = out[begin - start : end - start]
            if part.size == last - first:
                self._restore(self._holders[name], name, first, part)
                continue
            whole = np.empty(last - first, out.dtype)
            self._restore(self._holders[name], name, first, whole)
            part[:] = whole[begin - first : end - first]

    def rename(self, names: Mapping[str, str]) -> None:
        super().rename(names)
        self._packed_names = {names.get(name, name): packed for name, packed in self._packed_names.items()}

    def restored(self, file: PackedFile) -> Iterator[memoryview]:
        """The bytes of a safetensors file as it was packed, in pieces; decoded by several threads."""

        def restore(piece: tuple[str, int]) -> memoryview:
            name, first = piece
            place = file.places[name]
            out = np.empty(min(DELTA_CHUNK, place.numel - first), raw_type(place.code))
            self._restore(file, name, first, out)
            return out.view(np.uint8).data

        yield memoryview(file.header)
        yield from in_order(pieces(file.places), restore)

    def close(self) -> None:
        super().close()
        self.base.close()

    def _restore(self, file: PackedFile, name: str, first: int, out: Raw) -> None:
        """Fills `out` from the record of the numbers first, first+1, ..."""
        tensor, code = file.tensors[name], file.places[name].code
        number = first // DELTA_CHUNK
        start, end = tensor.ends[number : number + 2]
        record = self._record(file.data, name, start, end - start)
        base = None
        if tensor.base is not None:
            base = np.empty_like(out)
            self.base.read_into(name, first, base)
        try:
            decode(record, base, code, out)
        except DeltaError as error:
            self._blame(file, name, first, error)

    def _record(self, data: Path, name: str, start: int, length: int) -> bytes:
        record = b""
        while len(record) < length:
            with self._files.use(data) as file:
                got = os.pread(file, length - len(record), start + len(record))
            if not got:
                raise UserError(
                    f"ended within {name}", place=data, advice="the file was cut short while it was read."
                )
            record += got
        return record

    def _blame(self, file: PackedFile, name: str, first: int, error: DeltaError) -> None:
        """Raises the UserError for a record that cannot be restored: another base model, or a damaged file."""
        wanted = file.tensors[name].base
        if wanted is not None and (found := tensor_hash(self.base, name)) != wanted:
            raise UserError(
                (
                    f"{name} is not what {self.path} was packed from (its SHA-256 is {found[:12]}..., "
                    f"{wanted[:12]}... was expected)"
                ),
                place=self.base.path,
                advice="give the base model with which it was packed.",
            ) from error
        raise UserError(
            f"the record of {name} from element {first} is damaged: {error}",
            place=file.data,
            advice="copy the packed folder again.",
        ) from error


def _check_base(folder: Path, file: PackedFile, base: Checkpoint) -> None:
    for name in (name for name, tensor in file.tensors.items() if tensor.base is not None):
        if not same_form(base, name, file.places[name]):
            raise UserError(
                (
                    f"has no {name} of type {file.places[name].code} and shape "
                    f"{list(file.places[name].shape)}, from which {folder} was packed"
                ),
                place=base.path,
                advice="give the base model with which it was packed.",
            )


def same_form(base: Checkpoint, name: str, place: Place) -> bool:
    """Whether the base model has this tensor in this type and shape."""
    return name in base.names and (base.code(name), base.shape(name)) == (place.code, place.shape)


def pieces(places: Mapping[str, Place]) -> Iterator[tuple[str, int]]:
    """Name and first element of each record of a file, in the order of the data."""
    for name in in_data_order(places):
        for first in range(0, places[name].numel, DELTA_CHUNK):
            yield name, first


def tensor_hash(checkpoint: Checkpoint, name: str) -> str:
    """SHA-256 of a tensor's bytes."""
    found = sha256()
    size = checkpoint.numel(name)
    buffer = np.empty(min(size, _STRETCH), raw_type(checkpoint.code(name)))
    for start in range(0, size, _STRETCH):
        part = buffer[: min(_STRETCH, size - start)]
        checkpoint.read_into(name, start, part)
        found.update(part.data)
    return found.hexdigest()


def read_packed_files(folder: Path) -> dict[str, PackedFile]:
    """The packed files of a folder by name. Raises UserError for anything but a sound packed folder."""
    path = folder / DELTA_FILE
    described = read_json_object(path, "a folder that sftlab pack wrote")
    if described.get("format") != FORMAT or described.get("version") != VERSION:
        raise UserError(
            f"has format {described.get('format')!r}, version {described.get('version')!r}",
            place=path,
            value=described.get("format"),
            expected=f"{FORMAT!r}, version {VERSION}, which this sftlab reads",
        )
    listed = described.get("files")
    if not isinstance(listed, dict) or not listed:
        raise UserError(
            "its files are no object with entries", place=path, advice="copy the packed folder again."
        )
    return {name: _packed_file(folder, name, entry) for name, entry in sorted(listed.items())}


def _packed_file(folder: Path, name: str, entry: Any) -> PackedFile:
    path = folder / DELTA_FILE
    if not name.endswith(SAFETENSORS) or "/" in name or "\0" in name or name.startswith("."):
        raise UserError(f"{name!r} is no name of a safetensors file in this folder", place=path, value=name)
    data = folder / (name.removesuffix(SAFETENSORS) + DATA)
    hashed, tensors = (
        (entry.get(key) for key in ("sha256", "tensors")) if isinstance(entry, dict) else (None, None)
    )
    if not isinstance(hashed, str) or not _HASH.fullmatch(hashed) or not isinstance(tensors, dict):
        raise UserError(
            f"files.{name} lacks a sha256 or tensors", place=path, advice="copy the packed folder again."
        )
    if not _is_regular(data):
        raise UserError(
            f"missing or no file, but {DELTA_FILE} names {name}",
            place=data,
            advice="copy the packed folder again.",
        )
    header, places = read_header(data, whole=False)
    if differing := sorted(places.keys() ^ tensors.keys()):
        raise UserError(
            f"{differing[0]} is in only one of its header and {DELTA_FILE}",
            place=data,
            advice="copy the packed folder again.",
        )
    end = len(header)
    packed = {}
    for tensor in in_data_order(places):
        packed[tensor] = _packed_tensor(path, tensor, tensors[tensor], places[tensor], end)
        end = packed[tensor].ends[-1]
    if end != data.stat().st_size:
        raise UserError(
            f"has {data.stat().st_size} bytes where {DELTA_FILE} says {end}",
            place=data,
            advice="copy the packed folder again.",
        )
    return PackedFile(name, data, header, hashed, places, packed)


def _packed_tensor(path: Path, name: str, entry: Any, place: Place, start: int) -> PackedTensor:
    base, records = (entry.get(key) for key in ("base", "records")) if isinstance(entry, dict) else (0, None)
    if base is not None and not (isinstance(base, str) and _HASH.fullmatch(base)):
        raise UserError(
            f"the base of {name} is no SHA-256", place=path, advice="copy the packed folder again."
        )
    count = -(-place.numel // DELTA_CHUNK)
    if not isinstance(records, list) or len(records) != count:
        raise UserError(
            f"the records of {name} are no list of {count} numbers",
            place=path,
            advice="copy the packed folder again.",
        )
    largest = min(DELTA_CHUNK * place.nbytes // max(place.numel, 1), place.nbytes) + _LARGEST_FRAMING
    for length in records:
        if type(length) is not int or not 0 < length <= largest:
            raise UserError(
                f"a record of {name} has {length!r} bytes",
                place=path,
                value=length,
                expected=f"1 to {largest}",
                advice="copy the packed folder again.",
            )
    return PackedTensor(tuple(accumulate(records, initial=start)), base)


def _is_regular(path: Path) -> bool:
    try:
        return path.is_file()
    except (OSError, ValueError):  # no path at all: too long, or with a character that no name can have
        return False
