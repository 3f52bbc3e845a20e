"""Pieces of an evaluation that have no record yet, each with a note of its bytes and hash in the folder's `work/`.

The note is written before its piece is put in place, so that a piece counts from its rename on. One without a note
counts as unfinished; one that differs from its note is quarantined, and made again.
"""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING
from uuid import uuid4

from sftlab.errors import UserError
from sftlab.files import make_folder, readable_write_errors, write_text
from sftlab.store.mirror import display_path, drop, mirror_of, parse_note, pull, pull_all, push
from sftlab.store.record import PART, RECORD, WORK, file_entry, quarantine_path

if TYPE_CHECKING:
    import pyarrow as pa


log = logging.getLogger(__name__)


def commit_piece(table: pa.Table, path: Path) -> None:
    """`commit_table`, with a note. Raises UserError naming the file where the disk refuses it."""

    def write_note(draft: Path) -> None:
        write_text(_note(path), json.dumps(file_entry(draft)))
        push(_note(path))

    commit_table(table, path, before=write_note)


def fetch_pieces(paths: Iterable[Path]) -> None:
    """`pull` pieces, and what is needed to know whether they are sound."""
    pull_all([each for path in paths for each in (path, _note(path))])


def drop_piece(path: Path) -> None:
    """Delete a piece that is no longer needed."""
    drop(path)
    drop(_note(path))


def is_sound(path: Path, damaged: Path) -> bool:
    """Whether a piece is here and finished.

    A damaged one is logged and quarantined below `damaged`; so is that of the object store if its copy here was damaged
    and it has no better. Raises UserError where the file system refuses.
    """
    if not path.is_file():
        return False
    if (
        path.parent / RECORD
    ).is_file():  # another has committed the result meanwhile: its record has the hashes
        return True
    if not _note(path).is_file():
        return False
    if _is_as_noted(path):
        return True
    if mirror_of(path) is not None:
        for each in (path, _note(path)):
            pull(each, again=True)
        if _is_as_noted(path):
            return True
    _quarantine(path, damaged)
    return False


def _is_as_noted(path: Path) -> bool:
    try:
        note = parse_note(_note(path).read_bytes(), path.name, str(path))
        return note == file_entry(path)
    except (UserError, FileNotFoundError):
        return False


def _quarantine(path: Path, damaged: Path) -> None:
    to = damaged / quarantine_path(path)
    log.warning("%s: is damaged; quarantined as %s, to be made again.", display_path(path), display_path(to))
    make_folder(to.parent)
    with readable_write_errors(to):
        path.replace(to)
    mirror = mirror_of(path)
    if mirror is not None:
        mirror.objects.move(mirror.name(path), mirror.name(to))
    drop(_note(path))


def _note(path: Path) -> Path:
    return path.parent / WORK / f"{path.name}.json"


def commit_table(
    table: pa.Table, path: Path, checksums: bool = False, before: Callable[[Path], None] | None = None
) -> None:
    """Write parquet under a temporary name and move it into place; into the object store too, if it is one.

    `checksums`: with a CRC32 of each page, for pieces that no record has the hash of. `before` is called with the
    finished file before it is moved.

    Raises UserError naming the file where the disk refuses it; then nothing is at `path`.
    """
    import pyarrow.parquet as pq

    make_folder(path.parent)
    # Processes of several machines may write one block at a time, and have the same process id.
    draft = path.with_name(f".{path.name}.{uuid4().hex}{PART}")
    try:
        with readable_write_errors(path):
            pq.write_table(table, draft, write_page_checksum=checksums)
            with draft.open("rb") as file:
                os.fsync(file.fileno())
            if before is not None:
                before(draft)
            draft.replace(path)
        push(path)
    finally:
        with suppress(OSError):  # mostly it is gone; a read-only disk refuses even that
            draft.unlink()
