"""Packing a tuned model as the delta to its base model, and unpacking it to the same bytes."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from hashlib import sha256
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np

from sftlab.errors import UserError
from sftlab.files import new_output, readable_write_errors
from sftlab.weights.bits import Raw, raw_type
from sftlab.weights.companions import companions, copy_files, model_companions
from sftlab.weights.delta import DELTA_CHUNK, encode
from sftlab.weights.delta_folder import (
    DATA,
    FORMAT,
    SAFETENSORS,
    VERSION,
    Folder,
    PackedCheckpoint,
    is_packed,
    open_packed,
    open_tuned,
    same_form,
)
from sftlab.weights.headers import Place, in_data_order, read_header
from sftlab.weights.shards import DELTA_FILE, Checkpoint
from sftlab.weights.stream import Progress, Report, in_order
from sftlab.weights.writer import check_space

Fill = Callable[[int, Raw], None]
"""fill(start, out): fills `out` with the bits of the elements start, start+1, ... of a tensor."""


@dataclass(frozen=True)
class Packed:
    """What packing made: sizes, the tensors kept whole, and the files of the tuned folder that stay behind."""

    restored_bytes: int
    packed_bytes: int
    whole: tuple[str, ...]
    left_out: tuple[str, ...]


class DeltaWriter:
    """Writes a packed folder, tensor by tensor, while base and tuned bits are at hand.

    For each safetensors file: `begin(name, header)`, then `add` for each of its tensors in the order of their data.
    `finish()` writes DELTA_FILE, without which the folder is none. Holds a few records at a time.
    """

    def __init__(self, folder: Path, base: Checkpoint, progress: Progress | None = None) -> None:
        self.folder = folder
        self.whole: list[str] = []
        self._base = base
        self._progress = Progress(0) if progress is None else progress
        self._files: dict[str, dict[str, Any]] = {}
        self._places: Mapping[str, Place] = {}
        self._restored = sha256()
        self._data: _NewFile | None = None

    @contextmanager
    def file(self, name: str, header: bytes, places: Mapping[str, Place]) -> Iterator[None]:
        """Within the block, `add` takes the tensors of the safetensors file `name`.

        header: of the safetensors file, its eight bytes of length included. places: what it says.
        """
        assert name.endswith(SAFETENSORS) and name not in self._files
        tensors: dict[str, Any] = {}
        self._places, self._tensors, self._restored = places, tensors, sha256(header)
        with _NewFile(self.folder / _data_name(name)) as self._data:
            self._data.write(header)
            yield
            assert list(tensors) == in_data_order(places), "each tensor once, in the order of the data"
        self._files[name] = {"sha256": self._restored.hexdigest(), "tensors": tensors}

    def add(self, name: str, fill: Fill) -> None:
        """Writes the records of a tensor, whose bits `fill` gives; `fill` is called by several threads."""
        assert self._data is not None, "within a file"
        place = self._places[name]
        has_base = same_form(self._base, name, place)
        base_hash = sha256()
        records = []
        if not has_base:
            self.whole.append(name)

        def pack(first: int) -> tuple[bytes, Raw, Raw | None]:
            tuned: Raw = np.empty(min(DELTA_CHUNK, place.numel - first), raw_type(place.code))
            fill(first, tuned)
            base = None
            if has_base:
                base = np.empty_like(tuned)
                self._base.read_into(name, first, base)
            return encode(tuned, base, place.code), tuned, base

        for record, tuned, base in in_order(range(0, place.numel, DELTA_CHUNK), pack):
            self._data.write(record)
            records.append(len(record))
            self._restored.update(tuned.data)
            if base is not None:
                base_hash.update(base.data)
            self._progress.add(tuned.nbytes)
            self._progress.show()
        self._tensors[name] = {"base": base_hash.hexdigest() if has_base else None, "records": records}

    def finish(self) -> None:
        described = {"format": FORMAT, "version": VERSION, "files": self._files}
        with _NewFile(self.folder / DELTA_FILE) as file:
            file.write(json.dumps(described, separators=(",", ":")).encode() + b"\n")


def pack(base_dir: Folder, tuned_dir: Folder, output: Folder, progress: Report | None = None) -> Packed:
    """Writes OUTPUT, the tuned model as the delta to its base model, and reads it back before it gets that name.

    An adapter is packed as the merged model.

    Raises UserError for folders that are no models, for an OUTPUT that holds something, and for a disk that refuses.
    """
    folder = Path(output)
    _refuse_packed("--base", base_dir)
    _refuse_packed("--tuned", tuned_dir)
    with Checkpoint.open(base_dir) as base, open_tuned(tuned_dir, base_dir) as tuned:
        files = tuned.shards  # of the base model where the tuned model is an adapter
        moved = Progress(tuned.nbytes + sum(file.stat().st_size for file in files), progress)
        others = model_companions(base.path, tuned.path, index=True)
        with new_folder(folder) as staging:
            writer = DeltaWriter(staging, base, moved)
            for file in files:
                header, places = read_header(file)
                with writer.file(file.name, header, places):
                    for name in in_data_order(places):
                        writer.add(name, partial(tuned.read_into, name))
            writer.finish()
            copy_files(others, staging)
            check_restored(staging, base.path, moved)
            size = sum(file.stat().st_size for file in staging.rglob("*") if file.is_file())
        beside = [one.file for one in others]
        mine = [file for file in (*files, *beside) if file.is_relative_to(tuned.path)]
        travelled = {file.relative_to(tuned.path).parts[0] for file in mine}
        left = sorted(file.name for file in tuned.path.iterdir() if file.name not in travelled)
        restored = sum(file.stat().st_size for file in (*files, *beside))
        return Packed(restored, size, tuple(writer.whole), tuple(left))


def check_restored(folder: Path, base: Path, moved: Progress | None = None) -> None:
    """Restores a packed folder, to nowhere. Raises UserError where the bytes are not those that were packed."""
    with open_packed(folder, base) as packed:
        for name in packed.packed_files:
            _restore(packed, name, None, Progress(0) if moved is None else moved)


def unpack(base_dir: Folder, packed_dir: Folder, output: Folder, progress: Report | None = None) -> int:
    """Writes OUTPUT, the tuned model's folder as it was packed, byte for byte; returns the bytes of its weights.

    Raises UserError as `open_packed`, for restored bytes with another hash than recorded, for an OUTPUT that holds
    something, and for a disk that refuses or has no room.
    """
    if not is_packed(packed_dir):
        raise UserError(f"has no {DELTA_FILE}", place=packed_dir, expected="a folder that sftlab pack wrote")
    folder = Path(output)
    with open_packed(packed_dir, base_dir) as packed:
        total = sum(file.nbytes for file in packed.packed_files.values())
        moved = Progress(total, progress)
        others = companions(packed.path, index=True)
        check_space(folder, total)
        with new_folder(folder) as staging:
            for name in packed.packed_files:
                with _NewFile(staging / name) as target:
                    _restore(packed, name, target, moved)
            copy_files(others, staging)
        return total


@contextmanager
def new_folder(folder: Path) -> Iterator[Path]:
    """A hidden folder that takes the name `folder` when the block ends, and vanishes if it fails.

    Raises UserError where `folder` holds something already, and where another call writes it.
    """
    with new_output(folder, _require_empty) as staging:
        staging.mkdir()
        yield staging


def _require_empty(folder: Path) -> None:
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UserError("exists already", place=folder, advice="--output needs a new or empty folder.")


class _NewFile:
    """A new file whose bytes are on the disk when the block ends. Raises UserError where the disk refuses."""

    def __init__(self, path: Path) -> None:
        self._path = path
        with readable_write_errors(path):
            self._stream = path.open("xb")

    def write(self, data: bytes | memoryview) -> None:
        with readable_write_errors(self._path):
            self._stream.write(data)

    def __enter__(self) -> _NewFile:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with readable_write_errors(self._path), self._stream:
            if error is None:
                self._stream.flush()
                os.fsync(self._stream.fileno())


def _restore(packed: PackedCheckpoint, name: str, target: _NewFile | None, moved: Progress) -> None:
    """Restores a safetensors file into `target`, if there is one, and checks its hash."""
    file, found = packed.packed_files[name], sha256()
    for piece in packed.restored(file):
        found.update(piece)
        if target is not None:
            target.write(piece)
        moved.add(piece.nbytes)
        moved.show()
    if found.hexdigest() != file.sha256:
        raise UserError(
            f"restores {name} with SHA-256 {found.hexdigest()[:12]}..., {file.sha256[:12]}... is recorded",
            place=file.data,
            advice="copy the packed folder again.",
        )


def _data_name(name: str) -> str:
    return name.removesuffix(SAFETENSORS) + DATA


def _refuse_packed(option: str, folder: Folder) -> None:
    if is_packed(folder):
        raise UserError(
            "is a packed model already", place=f"{option} {folder}", advice="give a plain model folder."
        )
