"""Restored models: fine-tuned weights with those of a cut taken back to the base model's values."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from os import PathLike
from pathlib import Path

import torch
from torch import Tensor

from sftlab.weights.change import relative_change
from sftlab.weights.cut import Cut
from sftlab.weights.pairs import check_pair, tied_aliases
from sftlab.weights.regions import in_region
from sftlab.weights.search import PairReader
from sftlab.weights.selection import bit_difference, mark, mix, ranking_keys
from sftlab.weights.shards import Checkpoint
from sftlab.weights.stream import CHUNK, Chunk, Progress, Report, Worker, chunks, walk
from sftlab.weights.writer import DEFAULT_SHARD_BYTES, ShardWriter, TensorSpec, readable_write_errors

Folder = str | PathLike[str]
# As long as torch works through without starting threads: an engine that swaps weights shares the machine, and
# waiting for a second thread there costs a hundred times the work.
STRETCH = 1 << 15
_COMPANIONS = (".json", ".jinja", ".model", ".spm", ".tiktoken", ".txt")
_TOKENIZER_MARKS = (
    "tokenizer",
    "vocab",
    "merges",
    "special_tokens",
    "added_tokens",
    "spiece",
    "chat_template",
)


def restored_tensor(name: str, base: Tensor, tuned: Tensor, cut: Cut) -> Tensor:
    """The parameter `name` with the weights of the cut from `base` and the others from `tuned`, to the bit.

    Works through the parameter in stretches, so that little more memory is needed than for the result.
    """
    if not in_region(name, cut.region):
        return tuned
    restored = torch.empty_like(tuned)
    old, new, out = base.reshape(-1), tuned.reshape(-1), restored.view(-1)
    change, scratch = torch.empty(STRETCH), torch.empty(STRETCH)
    for start in range(0, new.numel(), STRETCH):
        part = slice(start, min(start + STRETCH, new.numel()))
        size = part.stop - start
        keys = ranking_keys(
            cut.order,
            cut.seed,
            name,
            start,
            relative_change(old[part], new[part], change[:size], scratch[:size]),
        )
        mix(mark(keys, name, start, cut), old[part], new[part], out[part])
    return restored


def restored_tensors(base: Checkpoint, tuned: Checkpoint, cut: Cut | None) -> Iterator[tuple[str, Tensor]]:
    """All tensors that the tuned model stores, one at a time, restored by the cut (None: as tuned).

    A tied tensor stored twice comes twice, the same both times.
    """
    aliases = tied_aliases(tuned)
    for name in tuned.names:
        source = aliases.get(name, name)
        tensor = tuned.read(name)
        if cut is not None and in_region(source, cut.region):
            tensor = restored_tensor(source, base.read(source), tensor, cut)
        yield name, tensor


@dataclass(frozen=True)
class ModelSource:
    """A model to be loaded: a base model as it is, a tuned model as it is, or one restored on the fly by a
    cut.

    Holds no data, only folder names, so it is cheap to send to another process.
    """

    base: str
    tuned: str | None = None
    cut: Cut | None = None

    @property
    def folder(self) -> str:
        """The folder with the configuration and the tokenizer of this model."""
        return self.tuned or self.base

    def tensors(self) -> Iterator[tuple[str, Tensor]]:
        """All tensors with their names, one at a time. Raises UserError as `Checkpoint.open` and
        `check_pair`.
        """
        if self.tuned is None or self.cut is None:
            with Checkpoint.open(self.folder) as model:
                yield from model.tensors()
            return
        with Checkpoint.open(self.base) as base, Checkpoint.open(self.tuned) as tuned:
            check_pair(base, tuned)
            yield from restored_tensors(base, tuned, self.cut)


class _RestorePass(Worker):
    """Reads a stretch of both models once and writes it into all restored models."""

    def __init__(
        self,
        base: Checkpoint,
        tuned: Checkpoint,
        targets: list[tuple[Cut, ShardWriter]],
        stored: dict[str, list[str]],
    ) -> None:
        self._base, self._tuned, self._targets, self._stored = base, tuned, targets, stored
        self._reader = PairReader(base, tuned)
        self._mark = torch.empty(CHUNK, dtype=torch.bool)
        self._raw = torch.empty(CHUNK * 8, dtype=torch.uint8)
        self._mixed = torch.empty(CHUNK * 4, dtype=torch.uint8)
        self._difference = torch.empty(CHUNK * 4, dtype=torch.uint8)

    def __call__(self, chunk: Chunk) -> int:
        regions = {cut.region for cut, _ in self._targets}
        if not any(in_region(chunk.name, region) for region in regions):
            return self._copy(chunk)
        base, tuned = self._reader.read(chunk)
        change = self._reader.change(base, tuned)
        done = int(base.nbytes + tuned.nbytes)
        mixed = self._mixed[: tuned.nbytes].view(tuned.dtype)
        difference = bit_difference(base, tuned, self._difference[: tuned.nbytes].view(tuned.dtype))
        marked = self._mark[: tuned.numel()]
        ranked: dict[tuple[str, int], Tensor] = {}
        for cut, writer in self._targets:
            values = tuned
            if in_region(chunk.name, cut.region):
                key = (cut.order, cut.seed)
                if key not in ranked:
                    ranked[key] = ranking_keys(cut.order, cut.seed, chunk.name, chunk.start, change)
                values = mix(
                    mark(ranked[key], chunk.name, chunk.start, cut, marked), base, tuned, mixed, difference
                )
            done += self._write(writer, chunk, values)
        return done

    def _copy(self, chunk: Chunk) -> int:
        dtype = self._tuned.dtype(chunk.name)
        values = self._raw[: (chunk.stop - chunk.start) * dtype.itemsize].view(dtype)
        self._tuned.read_into(chunk.name, chunk.start, values)
        return int(values.nbytes) + sum(self._write(writer, chunk, values) for _, writer in self._targets)

    def _write(self, writer: ShardWriter, chunk: Chunk, values: Tensor) -> int:
        return sum(writer.write(name, chunk.start, values) for name in self._stored[chunk.name])


@dataclass(frozen=True)
class RestoreBytes:
    """What writing restored models moves."""

    read: int
    written: int

    @property
    def total(self) -> int:
        return self.read + self.written


def restored_bytes(base_dir: Folder, tuned_dir: Folder, models: int) -> RestoreBytes:
    """The bytes that `write_restored` reads and writes for so many models."""
    with Checkpoint.open(base_dir) as base, Checkpoint.open(tuned_dir) as tuned:
        return RestoreBytes(base.nbytes + tuned.nbytes, models * tuned.nbytes)


def write_restored(
    base_dir: Folder,
    tuned_dir: Folder,
    cuts: Mapping[str, Cut],
    output_dir: Folder,
    shard_bytes: int = DEFAULT_SHARD_BYTES,
    progress: Report | None = None,
) -> dict[str, Path]:
    """Writes OUTPUT/restored-<percent> for every cut, all in one pass over the two models.

    Each is a plain Hugging Face folder: safetensors, and the configuration, generation configuration and
    tokenizer of the tuned model. Returns percent -> folder. Folders appear when all are complete; on any
    error nothing is left behind. Raises UserError for models that do not fit each other and for a full
    disk.
    """
    with Checkpoint.open(base_dir) as base, Checkpoint.open(tuned_dir) as tuned, ExitStack() as open_writers:
        check_pair(base, tuned)
        aliases = tied_aliases(tuned)
        stored = {name: [name] for name in tuned.names if name not in aliases}
        for alias, source in aliases.items():
            stored[source].append(alias)
        specs = {name: TensorSpec(tuned.dtype(name), tuned.shape(name)) for name in tuned.names}
        folders = {label: Path(output_dir) / f"restored-{label}" for label in cuts}
        targets = [
            (cut, open_writers.enter_context(ShardWriter(folders[label], specs, shard_bytes)))
            for label, cut in cuts.items()
        ]
        total = restored_bytes(base_dir, tuned_dir, len(cuts)).total
        sizes = {name: tuned.numel(name) for name in stored}
        walk(chunks(sizes), lambda: _RestorePass(base, tuned, targets, stored), Progress(total, progress))
        for _, writer in targets:
            copy_companions(Path(base_dir), Path(tuned_dir), writer.staging)
        for _, writer in targets:
            writer.commit()
        if progress is not None:
            progress(total, total)
    return folders


def copy_companions(base_dir: Path, tuned_dir: Path, target: Path) -> None:
    """Copies what stands beside the weights: configuration, generation configuration and tokenizer.

    They are the tuned model's; a tuned model without any tokenizer file takes the base model's. Never copied:
    weights and their index, pickles, code.
    """
    files = _companions(tuned_dir)
    if not any(_is_tokenizer(file) for file in files):
        files += [file for file in _companions(base_dir) if _is_tokenizer(file)]
    with readable_write_errors(target):
        for file in files:
            shutil.copyfile(file, target / file.name)


def _companions(folder: Path) -> list[Path]:
    return sorted(
        file
        for file in folder.iterdir()
        if file.is_file() and file.suffix in _COMPANIONS and not file.name.endswith(".index.json")
    )


def _is_tokenizer(file: Path) -> bool:
    return file.name.startswith(_TOKENIZER_MARKS) or file.suffix in (".model", ".spm", ".tiktoken")
