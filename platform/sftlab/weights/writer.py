"""Writing a checkpoint in safetensors, shard by shard, without ever holding a shard in memory."""

from __future__ import annotations

import errno
import json
import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path
from secrets import token_hex
from types import TracebackType

import numpy as np

from sftlab.errors import UserError
from sftlab.files import bytes_text, readable_write_errors
from sftlab.weights.bits import Raw, item_bytes
from sftlab.weights.open_files import OpenFiles
from sftlab.weights.shards import INDEX_FILE, SINGLE_FILE

DEFAULT_SHARD_BYTES = 5_000_000_000
PARTIAL = ".partial"  # ends the names of unfinished folders
# RWF_DONTCACHE of Linux 6.14: write behind and free the pages at once. A ladder is larger than what memory can
# hold, and would push the two models that are being read out of it.
_DONT_CACHE = 0x80


@dataclass(frozen=True)
class TensorSpec:
    """Type, as safetensors names it, and shape of a tensor that will be written."""

    code: str
    shape: tuple[int, ...]

    @property
    def nbytes(self) -> int:
        return prod(self.shape) * item_bytes(self.code)


def check_space(path: Path, need: int) -> None:
    """Raises UserError if the disk on which `path` is, or will be, has less than `need` bytes left."""
    there = next(folder for folder in [path, *path.absolute().parents] if folder.exists())
    free = shutil.disk_usage(there).free
    if need > free:
        raise UserError(
            f"needs {bytes_text(need)}, but the disk has {bytes_text(free)} left",
            place=path,
            advice="free some space or write elsewhere.",
        )


class ShardWriter:
    """Writes tensors, whole or in stretches and in any order, into safetensors files of a new model folder.

    All names, types and shapes are known beforehand, so headers come first and every stretch goes straight
    to its place in the file; several threads may write at once. Everything is written into a hidden sibling
    folder, which takes the name `folder` on `commit()`. Leaving the `with` block without it removes all
    traces.
    """

    def __init__(
        self,
        folder: Path,
        tensors: Mapping[str, TensorSpec],
        shard_bytes: int = DEFAULT_SHARD_BYTES,
        files: OpenFiles | None = None,
    ) -> None:
        """files: opens for writing; several writers share one, so that few files are open at a time."""
        self.folder = folder
        self._tensors = dict(tensors)
        self._files = OpenFiles(os.O_RDWR) if files is None else files
        self._written: list[Path] = []
        self._places: dict[str, tuple[Path, int]] = {}
        self._flags = _DONT_CACHE
        with readable_write_errors(folder):
            check_space(folder, sum(spec.nbytes for spec in self._tensors.values()))
            folder.parent.mkdir(parents=True, exist_ok=True)
            self.staging = folder.parent / f".{folder.name}.{token_hex(4)}{PARTIAL}"
            self.staging.mkdir()
            try:
                self._create(_shards(self._tensors, shard_bytes))
            except BaseException:
                self.discard()
                raise

    def write(self, name: str, start: int, values: Raw) -> int:
        """Writes bits as the elements start, start+1, ... of the flattened tensor `name`; returns their bytes.

        values: contiguous unsigned integers of the type's width.
        """
        spec = self._tensors[name]
        assert values.itemsize == item_bytes(spec.code) and start + values.size <= prod(spec.shape)
        if not values.size:
            return 0
        view = values.view(np.uint8).data
        path, offset = self._places[name]
        offset += start * values.itemsize
        with readable_write_errors(self.folder):
            while view:
                with self._files.use(path) as file:
                    put = self._put(file, view, offset)
                view, offset = view[put:], offset + put
        return int(values.nbytes)

    def _put(self, file: int, view: memoryview, offset: int) -> int:
        try:
            return os.pwritev(file, [view], offset, self._flags)
        except OSError as error:
            if not self._flags or error.errno not in (errno.EOPNOTSUPP, errno.EINVAL, errno.ENOSYS):
                raise
            self._flags = 0  # an older kernel or another file system
            return os.pwritev(file, [view], offset)

    def commit(self) -> None:
        """Gives the finished folder its name; an earlier folder of that name is replaced."""
        with readable_write_errors(self.folder):
            for path in self._written:
                with self._files.use(path) as file:
                    os.fsync(file)
            self._files.close(self._written)
            if self.folder.exists():
                shutil.rmtree(self.folder)
            self.staging.rename(self.folder)

    def discard(self) -> None:
        """Removes what was written so far; does nothing after `commit()`."""
        self._files.close(self._written)
        shutil.rmtree(self.staging, ignore_errors=True)

    def __enter__(self) -> ShardWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.discard()

    def _create(self, shards: list[list[str]]) -> None:
        weight_map = {}
        for number, names in enumerate(shards, start=1):
            name = SINGLE_FILE if len(shards) == 1 else f"model-{number:05d}-of-{len(shards):05d}.safetensors"
            header, offset = {"__metadata__": {"format": "pt"}}, 0
            starts = {}
            for tensor in names:
                spec = self._tensors[tensor]
                entry = {"dtype": spec.code, "shape": list(spec.shape)}
                header[tensor] = entry | {"data_offsets": [offset, offset + spec.nbytes]}  # type: ignore[assignment]
                starts[tensor] = offset
                offset += spec.nbytes
                weight_map[tensor] = name
            text = json.dumps(header).encode()
            text += b" " * (-len(text) % 8)  # keeps the data aligned
            file = os.open(self.staging / name, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o666)
            try:
                os.pwrite(file, len(text).to_bytes(8, "little") + text, 0)
                os.ftruncate(file, 8 + len(text) + offset)
            finally:
                os.close(file)
            self._written.append(self.staging / name)
            self._places |= {
                tensor: (self.staging / name, 8 + len(text) + start) for tensor, start in starts.items()
            }
        if len(shards) > 1:
            total = sum(spec.nbytes for spec in self._tensors.values())
            index = {"metadata": {"total_size": total}, "weight_map": dict(sorted(weight_map.items()))}
            (self.staging / INDEX_FILE).write_text(json.dumps(index, indent=2) + "\n", encoding="utf-8")


def _shards(tensors: Mapping[str, TensorSpec], limit: int) -> list[list[str]]:
    """Names by shard: in sorted order, wider types first within a shard so that every tensor is aligned."""
    shards: list[list[str]] = [[]]
    filled = 0
    for name in sorted(tensors):
        if shards[-1] and filled + tensors[name].nbytes > limit:
            shards.append([])
            filled = 0
        shards[-1].append(name)
        filled += tensors[name].nbytes
    return [sorted(names, key=lambda name: (-item_bytes(tensors[name].code), name)) for names in shards]
