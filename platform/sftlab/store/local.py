"""What a store does where its results are in a folder."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterable
from pathlib import Path
from typing import IO, Any

from sftlab.errors import UserError
from sftlab.files import make_folder, readable_write_errors
from sftlab.store.fingerprint import file_hash
from sftlab.store.mirror import forget
from sftlab.store.record import RECORD, WORK, Damaged, Record, file_entry, is_draft, read_record

Files = dict[str, dict[str, Any]]  # bytes and sha256 by path within a result's folder


def payload(folder: Path) -> Files:
    """Bytes and SHA-256 of the files of a folder that belong to the result."""
    return {
        path.relative_to(folder).as_posix(): file_entry(path)
        for path in sorted(folder.rglob("*"))
        if path.is_file()
        and path.relative_to(folder).parts[0] not in (WORK, RECORD)
        and not is_draft(path.relative_to(folder))
    }


def flush(folder: Path, files: Files) -> None:
    """Have a payload on disk, so that no record outlives a loss of power that its files do not.

    Raises UserError where the disk refuses.
    """
    for name in files:
        with readable_write_errors(folder / name), (folder / name).open("rb") as file:
            os.fsync(file.fileno())


def flock(file: IO[str], kind: int) -> None:
    """`fcntl.flock`. Raises BlockingIOError as it does, and UserError where the file system knows no locks."""
    try:
        fcntl.flock(file, kind)
    except BlockingIOError:
        raise
    except OSError as error:
        raise UserError(
            f"cannot be locked ({error.strerror})",
            place=file.name,
            expected="a file system with flock",
            advice="mount NFS with its lock service (NFS 4, or no `nolock`), Lustre with -o flock; or keep the store "
            "in a bucket (s3://...).",
        ) from error


def sound_record(folder: Path) -> Record | None:
    """The record of a result; None where it is not committed.

    Raises Damaged where the record is none, or a file is missing or has another size.
    """
    record = read_record(folder / RECORD)
    if record is None:
        return None
    for name, entry in record.files.items():
        size = _size(folder / name, entry["bytes"])
        if size != entry["bytes"]:
            has = "is missing" if size is None else f"has {size:,} bytes and not {entry['bytes']:,}"
            raise Damaged(folder, f"{name} {has}")
    return record


def records_of(folders: Iterable[Path]) -> list[Record]:
    """Records of committed results; those that are none are left out."""
    found = []
    for folder in folders:
        try:
            found.append(read_record(folder / RECORD))
        except Damaged:  # `Store.damage` reports it where the result is needed
            continue
    return [record for record in found if record is not None]


def quarantine(folder: Path, to: Path) -> None:
    """Move a result's folder. Raises UserError where the file system refuses."""
    make_folder(to.parent)
    with readable_write_errors(folder):
        folder.rename(to)
    forget(folder)


def wrong_file(folder: Path, record: Record) -> str | None:
    """The first file of a result whose bytes are not those recorded; reads all of them."""
    return next((n for n, entry in record.files.items() if file_hash(folder / n) != entry["sha256"]), None)


def _size(file: Path, expected: int) -> int | None:
    """A file's size, None where it is missing. A file of another size is opened, which makes a mount look again."""
    try:
        size = file.stat().st_size
        if size == expected:
            return size
        with file.open("rb") as stream:
            return os.fstat(stream.fileno()).st_size
    except FileNotFoundError:
        return None
