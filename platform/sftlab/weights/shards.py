"""Lazy reading of Hugging Face checkpoints in safetensors, single-file or sharded."""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from math import prod
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

import numpy as np

from sftlab.errors import UserError
from sftlab.store.mirror import pull
from sftlab.weights.bits import Raw, item_bytes, raw_view, torch_type

if TYPE_CHECKING:
    import torch


SINGLE_FILE = "model.safetensors"
INDEX_FILE = "model.safetensors.index.json"
# What stands beside the weights of a model: configuration and tokenizer; neither pickles nor code.
COMPANIONS = (".json", ".jinja", ".model", ".spm", ".tiktoken", ".txt")
_PICKLES = (".bin", ".pt", ".pth", ".ckpt")
_LARGEST_HEADER = 100_000_000
MAX_JSON = 64 * 2**20  # characters of a config.json or of the index of a sharded checkpoint
_LARGEST_NUMBER = 2**48  # of a dimension or an offset; more would be a petabyte


@dataclass(frozen=True)
class _Place:
    """Where a tensor lies: its shard, and its first byte in it."""

    shard: Path
    code: str
    shape: tuple[int, ...]
    start: int

    @property
    def nbytes(self) -> int:
        return prod(self.shape) * item_bytes(self.code)


class Checkpoint:
    """The tensors of a model folder, read one at a time or in stretches; never mapped, never read whole.

    Reads are positional, so several threads may share one checkpoint. Use it as a context manager, or call
    `close()`.
    """

    def __init__(self, path: Path, config: dict[str, Any], places: dict[str, _Place]) -> None:
        self.path = path
        self.config = config
        self.names: tuple[str, ...] = tuple(sorted(places))
        self._places = places
        self._files: dict[Path, int] = {}
        try:
            for shard in sorted({place.shard for place in places.values()}):
                self._files[shard] = os.open(shard, os.O_RDONLY)
        except OSError as error:
            self.close()
            raise UserError(f"{error.filename}: cannot be read: {error.strerror}.") from error

    @staticmethod
    def open(folder: str | os.PathLike[str]) -> Checkpoint:
        """Reads the headers of all shards. Raises UserError for anything but a sound safetensors
        checkpoint.
        """
        path = pull(Path(folder))
        if not path.is_dir():
            raise UserError(f"{path}: is not a folder; expected a Hugging Face model folder.")
        config = read_json_object(
            path / "config.json", "expected a Hugging Face model folder with its config.json"
        )
        return Checkpoint(path, config, _places(path))

    @property
    def nbytes(self) -> int:
        """Bytes of all tensors together."""
        return sum(place.nbytes for place in self._places.values())

    @property
    def files(self) -> dict[str, Path]:
        """The file of each tensor; files in order, and the names within each."""
        ordered = sorted(self._places, key=lambda name: (self._places[name].shard, name))
        return {name: self._places[name].shard for name in ordered}

    def code(self, name: str) -> str:
        """The type as safetensors names it: BF16, F16, F32, ..."""
        return self._places[name].code

    def dtype(self, name: str) -> torch.dtype:
        return torch_type(self.code(name))

    def shape(self, name: str) -> tuple[int, ...]:
        return self._places[name].shape

    def numel(self, name: str) -> int:
        return prod(self._places[name].shape)

    def read(self, name: str) -> torch.Tensor:
        """A fresh tensor with the contents of `name`."""
        import torch

        tensor = torch.empty(self.shape(name), dtype=self.dtype(name))
        self.read_into(name, 0, raw_view(tensor))
        return tensor

    def read_into(self, name: str, start: int, out: Raw) -> None:
        """Fills `out` with the bits of the elements start, start+1, ... of the flattened tensor `name`.

        out: contiguous unsigned integers of the type's width.
        """
        place = self._places[name]
        assert out.itemsize == item_bytes(place.code) and start + out.size <= prod(place.shape)
        if not out.size:
            return
        view = out.view(np.uint8).data
        offset = place.start + start * out.itemsize
        while view:
            got = os.preadv(self._files[place.shard], [view], offset)
            if got == 0:
                raise UserError(
                    f"{place.shard}: ended within {name}; the file was cut short while it was read."
                )
            view, offset = view[got:], offset + got

    def tensors(self) -> Iterator[tuple[str, torch.Tensor]]:
        """All tensors in the order of their names, one at a time."""
        for name in self.names:
            yield name, self.read(name)

    def close(self) -> None:
        while self._files:
            os.close(self._files.popitem()[1])

    def __enter__(self) -> Checkpoint:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __del__(self) -> None:
        self.close()


def companions(folder: Path) -> list[Path]:
    """The files beside the weights of a model folder (COMPANIONS), in the order of their names.

    Raises UserError for a link that leads out of the folder: what it leads to, perhaps a secret of the user's, would be
    copied into models that are passed on. The links of the Hugging Face cache, to its `blobs`, are followed.
    """
    real = folder.resolve()
    found = sorted(file for file in folder.iterdir() if file.suffix in COMPANIONS and file.is_file())
    for file in found:
        target = file.resolve()
        if target.parent not in (real, real.parent.parent / "blobs"):
            raise UserError(
                f"{file}: is a link out of the model's folder, to {target}; copy the file there if you mean it."
            )
    return found


def _places(folder: Path) -> dict[str, _Place]:
    single, index = folder / SINGLE_FILE, folder / INDEX_FILE
    if single.is_file() and index.is_file():
        raise UserError(
            f"{folder}: holds both {SINGLE_FILE} and {INDEX_FILE}, of which transformers would load the one and vLLM "
            "the other; delete what is not the model's."
        )
    if single.is_file():
        return _read_header(single)
    if index.is_file():
        return _sharded(folder, index)
    pickles = sorted(file.name for file in folder.iterdir() if file.suffix in _PICKLES)
    if pickles:
        raise UserError(
            f"{folder}: holds only pickle weights ({pickles[0]}), which can run code when they are loaded "
            "and are refused. Where you trust the file, convert it once: load it with transformers and call "
            "model.save_pretrained(folder), which writes safetensors."
        )
    if (folder / "adapter_model.safetensors").is_file():
        raise UserError(f"{folder}: is an adapter without its model; merge it into the base model first.")
    raise UserError(
        f"{folder}: holds neither {SINGLE_FILE} nor {INDEX_FILE}; expected a safetensors checkpoint."
    )


def _sharded(folder: Path, index: Path) -> dict[str, _Place]:
    weight_map = read_json_object(index, "expected the index of a sharded checkpoint").get("weight_map")
    if not isinstance(weight_map, dict) or not all(isinstance(file, str) for file in weight_map.values()):
        raise UserError(f"{index}: has no weight_map of tensor names to shard files; fetch the index again.")
    held: dict[str, list[str]] = {}
    for name, file in weight_map.items():
        held.setdefault(file, []).append(name)
    places = {}
    for file, names in sorted(held.items()):
        if Path(file).name != file:
            raise UserError(
                f"{index}: shard {file} of {names[0]} lies outside the folder; expected a file name."
            )
        if not _is_file(folder / file):
            raise UserError(
                f"{folder / file}: missing, but {INDEX_FILE} says it holds {names[0]}; fetch it again."
            )
        shard = _read_header(folder / file)
        for name in names:
            if name not in shard:
                raise UserError(
                    f"{folder / file}: lacks {name}, which {INDEX_FILE} says it holds; fetch both again."
                )
            places[name] = shard[name]
    return places


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except (OSError, ValueError):  # no path at all: too long, or with a zero byte
        return False


def read_json_object(path: Path, expected: str) -> dict[str, Any]:
    """The object in a JSON file. Raises UserError where there is none; `expected` says what to give."""
    try:
        if not stat.S_ISREG(path.stat().st_mode):  # a device or a pipe may never end
            raise UserError(f"{path}: is no regular file; {expected}.")
        with path.open(encoding="utf-8") as file:
            text = file.read(MAX_JSON + 1)
        if len(text) > MAX_JSON:
            raise UserError(f"{path}: has over {MAX_JSON:,} characters; {expected}.")
        data = json.loads(text)
    except FileNotFoundError:
        raise UserError(f"{path}: not found; {expected}.") from None
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"{path}: is not readable JSON ({error}); {expected}.") from error
    if not isinstance(data, dict):
        raise UserError(f"{path}: is not a JSON object; {expected}.")
    return data


def _read_header(shard: Path) -> dict[str, _Place]:
    """The tensors of one safetensors file, checked against its size, so that a cut-off file is refused
    here.
    """
    try:
        with shard.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            length = int.from_bytes(file.read(8), "little")
            if size < 8 or length > min(_LARGEST_HEADER, size - 8):
                raise UserError(f"{shard}: is truncated or no safetensors file; fetch it again.")
            header = json.loads(file.read(length))
    except OSError as error:
        raise UserError(f"{shard}: cannot be read: {error.strerror}.") from error
    except (ValueError, RecursionError) as error:
        raise UserError(f"{shard}: its header is damaged ({error}); fetch the file again.") from error
    if not isinstance(header, dict):
        raise UserError(f"{shard}: its header is damaged; fetch the file again.")
    header.pop("__metadata__", None)
    places = {name: _place(shard, name, entry, 8 + length) for name, entry in header.items()}
    end = 8 + length
    for name, place in sorted(places.items(), key=lambda item: (item[1].start, item[1].nbytes)):
        if place.start != end:
            raise UserError(
                f"{shard}: {name} begins at byte {place.start} where {end} was expected; tensors lie without gaps "
                "and do not overlap, so the file is damaged; fetch it again."
            )
        end += place.nbytes
    if end != size:
        state = "truncated" if size < end else "damaged"
        raise UserError(
            f"{shard}: is {state}: {size} bytes where its header says {end}; fetch the file again."
        )
    return places


def _place(shard: Path, name: str, entry: Any, data: int) -> _Place:
    try:
        code, shape, (start, stop) = entry["dtype"], tuple(entry["shape"]), entry["data_offsets"]
        numbers = (*shape, start, stop)
        sound = all(type(number) is int and 0 <= number < _LARGEST_NUMBER for number in numbers)
        place = _Place(shard, code, shape if sound else (), data + start)
        sound = sound and place.nbytes == stop - start
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(
            f"{shard}: its entry for {name} is damaged or of an unknown type ({error})."
        ) from error
    if not sound:
        raise UserError(f"{shard}: the size of {name} does not fit its shape; fetch the file again.")
    return place
