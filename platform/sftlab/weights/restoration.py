"""Restored and otherwise edited models: as streams of tensors, and as folders."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import numpy as np

from sftlab.errors import UserError
from sftlab.files import new_output
from sftlab.weights.bits import Raw, code_of, item_bytes, raw_type, raw_view
from sftlab.weights.companions import companions, copy_files, travelling
from sftlab.weights.cut import Cut
from sftlab.weights.delta_folder import open_tuned
from sftlab.weights.edits import Edit, Restoration
from sftlab.weights.mixer import LadderMixer
from sftlab.weights.open_files import OpenFiles
from sftlab.weights.pairs import check_pair, is_shared, open_pair, tied_aliases
from sftlab.weights.regions import in_region
from sftlab.weights.shards import Checkpoint
from sftlab.weights.stream import CHUNK, Chunk, Progress, Report, Worker, chunks, thread_count, walk
from sftlab.weights.writer import DEFAULT_SHARD_BYTES, ShardWriter, TensorSpec

if TYPE_CHECKING:
    import torch

Folder = str | PathLike[str]
_EDIT_PASSES = 3  # an edit other than a restoration reads from both models and writes once


class TensorSource(Protocol):
    """A model that gives its tensors, one at a time, again at every call."""

    def tensors(self) -> Iterator[tuple[str, torch.Tensor]]: ...


@dataclass(frozen=True)
class ModelSource:
    """A model to be loaded: a base model as it is, a tuned model as it is, or one edited on the fly.

    Holds no data, only folder names and the edit, so it is cheap to send to another process.
    """

    base: str
    tuned: str | None = None
    edit: Edit | None = None

    @property
    def folder(self) -> str:
        """The folder with the configuration and the tokenizer of this model."""
        return self.tuned or self.base

    def tensors(self) -> Iterator[tuple[str, torch.Tensor]]:
        """All tensors with their names, one at a time. Raises UserError as `Checkpoint.open`, `check_pair`
        and the edit.
        """
        if self.tuned is None or self.edit is None:
            with open_tuned(self.folder, self.base) as model:
                yield from model.tensors()
            return
        with open_pair(self.base, self.tuned) as (base, tuned):
            check_pair(base, tuned, *self.edit.scope)
            yield from self.edit.tensors(base, tuned)


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
        self._shared = {name for name in stored if is_shared(base, tuned, name)}
        self._writers = [writer for _, writer in targets]
        self._regions = {(cut.region, cut.layers) for cut, _ in targets}
        self._mixer = LadderMixer(base, tuned, [cut for cut, _ in targets])
        self._raw = np.empty(CHUNK, dtype=np.uint64)

    def __call__(self, chunk: Chunk) -> int:
        if chunk.name in self._shared and any(in_region(chunk.name, *region) for region in self._regions):
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
    """The bytes that `write_restored` reads and writes for so many restorations."""
    with open_pair(base_dir, tuned_dir) as (base, tuned):
        return RestoreBytes(base.nbytes + tuned.nbytes, models * tuned.nbytes)


def write_restored(
    base_dir: Folder,
    tuned_dir: Folder,
    edits: Mapping[str, Edit | None],
    output_dir: Folder,
    shard_bytes: int = DEFAULT_SHARD_BYTES,
    progress: Report | None = None,
) -> dict[str, Path]:
    """Writes OUTPUT/restored-<percent> for every edit (None: the tuned model as it is).

    Restorations are written in one pass over the two models, other edits in a pass each. Each folder is a
    plain Hugging Face folder: safetensors, and the configuration, generation configuration and tokenizer of
    the tuned model. Returns percent -> folder. Folders appear when all are complete; on any error nothing
    is left behind. Raises UserError for models that do not fit each other, for files beside the weights that cannot
    be copied, for a full disk, and as the edits do.
    """
    with (
        open_pair(base_dir, tuned_dir) as (base, tuned),
        ExitStack() as open_writers,
    ):
        for scope in {("all", None) if edit is None else edit.scope for edit in edits.values()}:
            check_pair(base, tuned, *scope)
        files = travelling(Path(base_dir), Path(tuned_dir))
        specs = {name: TensorSpec(tuned.code(name), tuned.shape(name)) for name in tuned.names}
        folders = {label: Path(output_dir) / f"restored-{label}" for label in edits}
        opened = OpenFiles(os.O_RDWR)
        writers = {
            label: open_writers.enter_context(ShardWriter(folder, specs, shard_bytes, opened))
            for label, folder in folders.items()
        }
        cuts = [(e.cut, writers[label]) for label, e in edits.items() if isinstance(e, Restoration)]
        others = [(e, writers[label]) for label, e in edits.items() if not isinstance(e, Restoration)]
        total = (base.nbytes + tuned.nbytes if cuts else 0) + len(cuts) * tuned.nbytes
        total += len(others) * _EDIT_PASSES * tuned.nbytes
        moved = Progress(total, progress)
        if cuts:
            _write_cuts(base, tuned, cuts, moved)
        for edit, writer in others:
            _write_tensors(base, tuned, edit, writer, moved)
        for writer in writers.values():
            copy_files(files, writer.staging)
        for writer in writers.values():
            writer.commit()
        if progress is not None:
            progress(total, total)
    return folders


def write_model(
    base_dir: Folder, tuned_dir: Folder, edit: Edit | None, target: Path, progress: Report | None = None
) -> None:
    """Writes one model of `write_restored` to `target`, which appears when it is complete; a rest is replaced.

    Raises UserError if `target` exists, if another call writes it, and as `write_restored`.
    """
    with new_output(target, require_new) as made:
        (folder,) = write_restored(
            base_dir, tuned_dir, {"model": edit}, made.parent, progress=progress
        ).values()
        folder.rename(made)


def require_new(target: Path) -> None:
    """Raises UserError where the folder that is to be written exists."""
    if target.exists():
        raise UserError("exists already", place=target, advice="give another --output, or delete it first.")


def _write_cuts(
    base: Checkpoint, tuned: Checkpoint, targets: list[tuple[Cut, ShardWriter]], moved: Progress
) -> None:
    aliases = tied_aliases(tuned)
    stored = {name: [name] for name in tuned.names if name not in aliases}
    for alias, source in aliases.items():
        stored[source].append(alias)
    walk(
        chunks({name: tuned.numel(name) for name in stored}),
        lambda: _RestorePass(base, tuned, targets, stored),
        moved,
        threads=2 * thread_count(),  # while some wait for the disk, others compute
    )


def _write_tensors(
    base: Checkpoint, tuned: Checkpoint, edit: Edit | None, writer: ShardWriter, moved: Progress
) -> None:
    missing = set(tuned.names)
    for name, tensor in tuned.tensors() if edit is None else edit.tensors(base, tuned):
        moved.add(_EDIT_PASSES * writer.write(name, 0, raw_view(tensor)))
        moved.show()
        missing.discard(name)
    if missing:
        raise UserError(
            f"gave no {min(missing)}", place=edit, advice="an edit gives every tensor of the tuned model."
        )


def write_source(base: Path, source: TensorSource, folder: Path) -> Path:
    """Writes the model of a source as a folder, with the configuration and the tokenizer of `base`; returns it.

    The source is read twice, as its shapes come first. Raises UserError for a disk without room.
    """
    specs = {name: TensorSpec(code_of(tensor), tuple(tensor.shape)) for name, tensor in source.tensors()}
    with ShardWriter(folder, specs) as writer:
        for name, tensor in source.tensors():
            writer.write(name, 0, raw_view(tensor.contiguous()))
        copy_files(companions(base), writer.staging)
        writer.commit()
    return folder
