"""Restored models: fine-tuned weights with those of a cut taken back to the base model's values."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from sftlab.weights.bits import Raw, item_bytes, raw_type, raw_view
from sftlab.weights.cut import Cut
from sftlab.weights.pairs import check_pair, tied_aliases
from sftlab.weights.regions import in_region
from sftlab.weights.search import PairReader
from sftlab.weights.selection import Keys, mark, mix, ranking_keys
from sftlab.weights.shards import Checkpoint
from sftlab.weights.stream import CHUNK, Chunk, Progress, Report, Worker, chunks, thread_count, walk
from sftlab.weights.writer import DEFAULT_SHARD_BYTES, ShardWriter, TensorSpec, readable_write_errors

if TYPE_CHECKING:
    import torch

Folder = str | PathLike[str]
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


class LadderMixer:
    """Mixes stretches of two models into stretches of restored models, in buffers of its own."""

    def __init__(self, base: Checkpoint, tuned: Checkpoint, cuts: Sequence[Cut]) -> None:
        self._reader = PairReader(base, tuned)
        self._cuts = cuts
        self._mark = np.empty(CHUNK, dtype=np.bool_)
        self._difference, self._mixed = (np.empty(CHUNK, dtype=np.uint32) for _ in range(2))

    def mix(self, chunk: Chunk) -> Iterator[Raw]:
        """The bits of the stretch in the model of every cut, one after the other; valid until the next one.

        The parameter must belong to the region of at least one of the cuts.
        """
        base, tuned = self._reader.read(chunk)
        change = self._reader.change(chunk, base, tuned)
        difference = np.bitwise_xor(base, tuned, out=self._difference.view(base.dtype)[: base.size])
        mixed = self._mixed.view(base.dtype)[: base.size]
        marked = self._mark[: base.size]
        ranked: dict[tuple[str, int], Keys] = {}
        for cut in self._cuts:
            if not in_region(chunk.name, cut.region):
                yield tuned
                continue
            key = (cut.order, cut.seed)
            if key not in ranked:
                ranked[key] = ranking_keys(cut.order, cut.seed, chunk.name, chunk.start, change)
            mark(ranked[key], chunk.name, chunk.start, cut, marked)
            yield mix(marked, difference, tuned, mixed)


def restored_tensors(
    base: Checkpoint, tuned: Checkpoint, cut: Cut | None
) -> Iterator[tuple[str, torch.Tensor]]:
    """All tensors that the tuned model stores, one at a time, restored by the cut (None: as tuned).

    A tied tensor stored twice comes twice, the same both times.
    """
    import torch

    aliases = tied_aliases(tuned)
    mixer = LadderMixer(base, tuned, [] if cut is None else [cut])
    for name in tuned.names:
        source = aliases.get(name, name)
        if cut is None or not in_region(source, cut.region):
            yield name, tuned.read(name)
            continue
        tensor = torch.empty(tuned.shape(name), dtype=tuned.dtype(name))
        bits = raw_view(tensor)
        for chunk in chunks({source: tuned.numel(name)}):
            for mixed in mixer.mix(chunk):
                bits[chunk.start : chunk.stop] = mixed
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

    def tensors(self) -> Iterator[tuple[str, torch.Tensor]]:
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
        self._tuned, self._stored = tuned, stored
        self._writers = [writer for _, writer in targets]
        self._regions = {cut.region for cut, _ in targets}
        self._mixer = LadderMixer(base, tuned, [cut for cut, _ in targets])
        self._raw = np.empty(CHUNK, dtype=np.uint64)

    def __call__(self, chunk: Chunk) -> int:
        if any(in_region(chunk.name, region) for region in self._regions):
            models = self._mixer.mix(chunk)
            written = sum(
                self._write(writer, chunk, bits) for writer, bits in zip(self._writers, models, strict=True)
            )
            size = item_bytes(self._tuned.code(chunk.name)) * (chunk.stop - chunk.start)
            return 2 * size + written
        values = self._raw.view(raw_type(self._tuned.code(chunk.name)))[: chunk.stop - chunk.start]
        self._tuned.read_into(chunk.name, chunk.start, values)
        return int(values.nbytes) + sum(self._write(writer, chunk, values) for writer in self._writers)

    def _write(self, writer: ShardWriter, chunk: Chunk, values: Raw) -> int:
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
        specs = {name: TensorSpec(tuned.code(name), tuned.shape(name)) for name in tuned.names}
        folders = {label: Path(output_dir) / f"restored-{label}" for label in cuts}
        targets = [
            (cut, open_writers.enter_context(ShardWriter(folders[label], specs, shard_bytes)))
            for label, cut in cuts.items()
        ]
        total = restored_bytes(base_dir, tuned_dir, len(cuts)).total
        sizes = {name: tuned.numel(name) for name in stored}
        walk(
            chunks(sizes),
            lambda: _RestorePass(base, tuned, targets, stored),
            Progress(total, progress),
            threads=2 * thread_count(),  # while some wait for the disk, others compute
        )
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
