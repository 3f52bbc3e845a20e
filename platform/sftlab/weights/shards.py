"""Lazy reading of Hugging Face checkpoints in safetensors, single-file or sharded."""

from __future__ import annotations

import json
import logging
import os
import stat
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from math import prod
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from sftlab.errors import UserError
from sftlab.store.mirror import pull
from sftlab.weights.bits import Raw, item_bytes, raw_view, torch_type
from sftlab.weights.headers import Place, read_header
from sftlab.weights.open_files import OpenFiles

if TYPE_CHECKING:
    import torch


SINGLE_FILE = "model.safetensors"
INDEX_FILE = "model.safetensors.index.json"
DELTA_FILE = "weights.delta.json"  # what a packed folder holds in place of weights; see delta_folder.py
# Files next to the weights that belong to a model's identity: configuration and tokenizer; neither pickles nor code.
COMPANIONS = (".json", ".jinja", ".model", ".spm", ".tiktoken", ".txt")
TOKENIZER_NAMES = ("bpe.codes", "prophetnet.tokenizer", "vocab.bpe")  # those with another suffix
ADAPTER_CONFIG, ADAPTER_FILE = "adapter_config.json", "adapter_model.safetensors"  # of peft; see adapter.py
_PICKLES = (".bin", ".pt", ".pth", ".ckpt")
MAX_JSON = 64 * 2**20  # characters of a config.json or of the index of a sharded checkpoint
_COMPARED = 2**22  # bytes of two copies of a tensor that are compared at once


class Checkpoint:
    """The tensors of a model folder, read one at a time or in stretches; never mapped, never read whole.

    Reads are positional, so several threads may share one checkpoint. Use it as a context manager, or call
    `close()`.
    """

    def __init__(
        self, path: Path, config: dict[str, Any], shards: tuple[Path, ...], places: Mapping[str, Place]
    ) -> None:
        self._files = OpenFiles()
        self.path = path
        self.config = config
        self.shards = shards
        self.names: tuple[str, ...] = tuple(sorted(places))
        self.places = places
        try:
            for shard in shards:
                with self._files.use(shard):
                    pass
        except OSError as error:
            self.close()
            raise UserError(f"cannot be read: {error.strerror}", place=error.filename) from error

    @staticmethod
    def open(folder: str | os.PathLike[str]) -> Checkpoint:
        """Reads the headers of all shards. Raises UserError for anything but a sound safetensors checkpoint, and as
        `layout` does. Logs a warning for a tensor that the index omits or names the wrong shard for; it is read.
        """
        path = pull(Path(folder))
        if not path.is_dir():
            raise UserError("is not a folder", place=path, expected="a Hugging Face model folder")
        if (path / ADAPTER_CONFIG).is_file() and not (path / "config.json").is_file():
            raise _adapter(path)
        config = read_json_object(path / "config.json", "a Hugging Face model folder with its config.json")
        found = layout(path)
        _check_named_weights(path, config, found)
        return Checkpoint(path, config, found.shards, _places(found))

    @property
    def nbytes(self) -> int:
        """Bytes of all tensors together."""
        return sum(place.nbytes for place in self.places.values())

    @property
    def files(self) -> dict[str, Path]:
        """The file of each tensor; files in order, and the names within each."""
        ordered = sorted(self.places, key=lambda name: (self.places[name].shard, name))
        return {name: self.places[name].shard for name in ordered}

    def code(self, name: str) -> str:
        """The type as safetensors names it: BF16, F16, F32, ..."""
        return self.places[name].code

    def dtype(self, name: str) -> torch.dtype:
        return torch_type(self.code(name))

    def shape(self, name: str) -> tuple[int, ...]:
        return self.places[name].shape

    def numel(self, name: str) -> int:
        return self.places[name].numel

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
        place = self.places[name]
        assert out.itemsize == item_bytes(place.code) and start + out.size <= prod(place.shape)
        if not out.size:
            return
        view = out.view(np.uint8).data
        offset = place.start + start * out.itemsize
        while view:
            with self._files.use(place.shard) as file:
                got = os.preadv(file, [view], offset)
            if got == 0:
                raise UserError(
                    f"ended within {name}",
                    place=place.shard,
                    advice="the file was cut short while it was read.",
                )
            view, offset = view[got:], offset + got

    def rename(self, names: Mapping[str, str]) -> None:
        """From now on calls these tensors by other names, which no other tensor has."""
        if names:
            self.places = {names.get(name, name): place for name, place in self.places.items()}
            self.names = tuple(sorted(self.places))

    def tensors(self) -> Iterator[tuple[str, torch.Tensor]]:
        """All tensors in the order of their names, one at a time."""
        for name in self.names:
            yield name, self.read(name)

    def close(self) -> None:
        self._files.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __del__(self) -> None:
        self.close()


def _check_named_weights(folder: Path, config: Mapping[str, Any], found: Layout) -> None:
    """Raises UserError where config.json names other weights (`transformers_weights`) than vLLM reads."""
    named = config.get("transformers_weights")
    read = found.index or found.shards[0]
    if named is not None and named != read.name:
        raise UserError(
            (
                f"transformers_weights = {named!r} makes transformers read other weights than "
                f"{read.name}, which vLLM reads"
            ),
            place=folder / "config.json",
            value=named,
            advice="remove the entry, or the file that is not the model's.",
        )


@dataclass(frozen=True)
class Layout:
    """The files that hold a model's weights: shards by name, and the index with its map, where there is one."""

    shards: tuple[Path, ...]
    index: Path | None
    weight_map: Mapping[str, str]


def layout(folder: Path) -> Layout:
    """Decides which files hold the weights of a model folder, as transformers' `from_pretrained` does.

    A single file is read whole. Of a sharded checkpoint every shard that the index names is read whole. Raises
    UserError that names the files where transformers and vLLM would read different ones, where a shard is missing, and
    where a file is named like a shard and nothing reads it.
    """
    single, index = folder / SINGLE_FILE, folder / INDEX_FILE
    if (folder / DELTA_FILE).is_file():
        raise UserError(
            "is a packed model, which is read together with its base model",
            place=folder,
            advice="write it as a plain folder with sftlab unpack first.",
        )
    if index.is_file():
        found = _indexed(folder, index)
        if single.is_file() and found.shards != (single,):
            other = next(shard.name for shard in found.shards if shard != single)
            raise UserError(
                f"holds both {SINGLE_FILE} and {INDEX_FILE}, which names {other}",
                place=folder,
                advice="transformers would load the one and vLLM the other; delete what is not the model's.",
            )
    elif single.is_file():
        found = Layout((single,), None, {})
    else:
        raise _without_weights(folder)
    for file in sorted(set(folder.glob("model*.safetensors")) - set(found.shards)):
        reader = f"{index} does not name it" if found.index else f"transformers reads {SINGLE_FILE} alone"
        raise UserError(
            f"is named like a shard, but {reader}, so its tensors would be lost",
            place=file,
            advice="fetch the model again, or move the file out of the folder where it is not the model's.",
        )
    return found


def model_files(folder: Path) -> list[Path]:
    """All files that make up a model: weights, their index, configuration and tokenizer; none where no weights are.

    Other weights in the folder, such as those of an optimizer, are not the model's. Raises UserError as `layout`.
    """
    if not folder.is_dir():
        return []
    companions = [
        file
        for file in folder.iterdir()
        if (file.suffix in COMPANIONS or file.name in TOKENIZER_NAMES) and file.is_file()
    ]
    companions += (folder / "additional_chat_templates").glob("*.jinja")
    weights = layout(folder).shards if has_weights(folder) else ()
    return sorted({*companions, *weights})


def has_weights(folder: Path) -> bool:
    """Whether a folder has files that are named as a model's weights, plain or packed."""
    return any(folder.glob("model*.safetensors*")) or (folder / DELTA_FILE).is_file()


def _adapter(folder: Path) -> UserError:
    return UserError(
        "is an adapter without its model",
        place=folder,
        advice=(
            "it is taken as a tuned model (--tuned) together with its base model. For another use, merge it first "
            "with merge_and_unload() of peft, and save the result."
        ),
    )


def _without_weights(folder: Path) -> UserError:
    pickles = sorted(file.name for file in folder.iterdir() if file.suffix in _PICKLES)
    if pickles:
        return UserError(
            f"holds only pickle weights ({pickles[0]}), which can run code when they are loaded and are refused",
            place=folder,
            value=pickles[0],
            advice=(
                "where you trust the file, convert it once: load it with transformers and call "
                "model.save_pretrained(folder), which writes safetensors."
            ),
        )
    if (folder / ADAPTER_FILE).is_file():
        return _adapter(folder)
    return UserError(
        f"holds neither {SINGLE_FILE} nor {INDEX_FILE}", place=folder, expected="a safetensors checkpoint"
    )


def _indexed(folder: Path, index: Path) -> Layout:
    content = read_json_object(index, "the index of a sharded checkpoint")
    weight_map = content.get("weight_map")
    named = isinstance(weight_map, dict) and all(isinstance(file, str) for file in weight_map.values())
    if not named or not weight_map:
        raise UserError(
            "has no weight_map of tensor names to shard files", place=index, advice="fetch the index again."
        )
    holds = {file: name for name, file in reversed(weight_map.items())}
    for file, name in sorted(holds.items()):
        if Path(file).name != file:
            raise UserError(
                f"shard {file} of {name} is outside the folder", place=index, expected="a file name"
            )
        if not _is_file(folder / file):
            raise UserError(
                f"missing, but {INDEX_FILE} says it holds {name}",
                place=folder / file,
                advice="fetch it again.",
            )
    if "metadata" not in content:
        raise UserError(
            "has no metadata, which transformers requires", place=index, advice='add "metadata": {} to it.'
        )
    return Layout(tuple(folder / file for file in sorted(holds)), index, weight_map)


def _places(found: Layout) -> dict[str, Place]:
    """The tensors of all shards. Raises UserError where one is nowhere, or in two shards with different contents."""
    places: dict[str, Place] = {}
    holders: dict[str, list[Path]] = {}
    for shard in found.shards:
        for name, place in read_header(shard)[1].items():
            holders.setdefault(name, []).append(shard)
            if name in places and not _same_bytes(places[name], place):
                raise UserError(
                    (
                        f"holds {name} with other values than {places[name].shard}, and {found.index} cannot "
                        "decide for all readers"
                    ),
                    place=shard,
                    advice="delete the shard that is not the model's, or fetch the model again.",
                )
            places[name] = place
    for name, file in found.weight_map.items():
        if name not in places:
            raise UserError(
                f"lacks {name}, which {INDEX_FILE} says it holds, and no other shard has it",
                place=found.shards[0].with_name(file),
                advice="fetch both again.",
            )
    for text in disagreements(found, holders):
        _report(text)
    return places


def disagreements(found: Layout, holders: Mapping[str, Sequence[Path]]) -> list[str]:
    """Where the index and its shards disagree on tensors that are read all the same: those that it omits, and those
    that it names the wrong shard for. holders: the shards that hold each tensor.
    """
    if found.index is None:
        return []
    omitted = sorted(name for name in holders if name not in found.weight_map)
    wrong = sorted(
        name for name, file in found.weight_map.items() if file not in {shard.name for shard in holders[name]}
    )
    texts = []
    if omitted:
        texts.append(f"omits {omitted[0]}, which {holders[omitted[0]][0]} holds{_and_more(omitted)}")
    if wrong:
        first = wrong[0]
        texts.append(
            f"names {found.weight_map[first]} for {first}, which {holders[first][0]} holds{_and_more(wrong)}"
        )
    return [f"{found.index}: {text}; all are read, as transformers does." for text in texts]


def _and_more(names: Sequence[str]) -> str:
    return f" (and {len(names) - 1} more tensors likewise)" if len(names) > 1 else ""


@cache
def _report(text: str) -> None:
    """Logs a warning once in a process, however often a folder is opened."""
    logging.getLogger(__name__).warning(text)


def _same_bytes(one: Place, other: Place) -> bool:
    if (one.code, one.shape) != (other.code, other.shape):
        return False
    with one.shard.open("rb") as left, other.shard.open("rb") as right:
        left.seek(one.start)
        right.seek(other.start)
        for start in range(0, one.nbytes, _COMPARED):
            length = min(_COMPARED, one.nbytes - start)
            if left.read(length) != right.read(length):
                return False
    return True


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except (OSError, ValueError):  # no path at all: too long, or with a zero byte
        return False


def read_json_object(path: Path, expected: str) -> dict[str, Any]:
    """The object in a JSON file. Raises UserError where there is none; `expected` is what to give."""
    try:
        if not stat.S_ISREG(path.stat().st_mode):  # a device or a pipe may never end
            raise UserError("is no regular file", place=path, expected=expected)
        with path.open(encoding="utf-8") as file:
            text = file.read(MAX_JSON + 1)
        if len(text) > MAX_JSON:
            raise UserError(f"has over {MAX_JSON:,} characters", place=path, expected=expected)
        data = json.loads(text)
    except FileNotFoundError:
        raise UserError("not found", place=path, expected=expected) from None
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"is not readable JSON ({error})", place=path, expected=expected) from error
    if not isinstance(data, dict):
        raise UserError("is not a JSON object", place=path, expected=expected)
    return data
