"""A store in a folder, local or a shared mount."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from sftlab.files import make_folder, may_write, readable_write_errors, write_text
from sftlab.store.backend import DAMAGED, Files, refuse_other
from sftlab.store.fingerprint import file_hash
from sftlab.store.locks import FolderLocks
from sftlab.store.mirror import forget
from sftlab.store.record import (
    RECORD,
    WORK,
    Damaged,
    Record,
    Step,
    file_entry,
    is_draft,
    labelled,
    read_record,
)


class Folder:
    """The backend of results in a folder."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._names: dict[str, set[str]] = {}  # by stage, within `listed`

    def __reduce__(self) -> tuple[type[Folder], tuple[Path]]:
        return Folder, (self.root,)

    @property
    def locks(self) -> FolderLocks:
        return FolderLocks(self.root)

    @property
    def reads_only(self) -> bool:
        return not may_write(self.root)

    def __str__(self) -> str:
        return str(self.root)

    def stages(self) -> list[str]:
        return sorted(path.name for path in self.root.glob("*") if path.is_dir() and path.name != DAMAGED)

    def names(self, stage: str) -> set[str]:
        if stage in self._names:
            return self._names[stage]
        try:
            with os.scandir(self.root / stage) as entries:
                return {entry.name for entry in entries}
        except (FileNotFoundError, NotADirectoryError):
            return set()

    def label(self, step: Step) -> str:
        def has_record(name: str) -> bool:
            return (self.root / step.stage / name / RECORD).exists()

        return step.folder if has_record(step.folder) else labelled(step, self.names(step.stage), has_record)

    @contextmanager
    def listed(self, stages: Collection[str], names_only: bool) -> Iterator[None]:  # noqa: ARG002
        self._names = {stage: self.names(stage) for stage in stages}
        try:
            yield
        finally:
            self._names = {}

    def is_committed(self, folder: Path) -> bool:
        return folder.name in self.names(folder.parent.name) and (folder / RECORD).exists()

    def is_begun(self, folder: Path) -> bool:
        return folder.is_dir() and any(folder.iterdir())

    def record(self, folder: Path) -> Record | None:
        return sound_record(folder)

    def record_now(self, folder: Path) -> Record | None:
        return sound_record(folder)

    def records(self, folders: Iterable[Path]) -> list[Record]:
        found = []
        for folder in folders:
            try:
                found.append(read_record(folder / RECORD))
            except Damaged:  # `Store.damage` reports it where the result is needed
                continue
        return [record for record in found if record is not None]

    def wrong_file(self, folder: Path, record: Record) -> str | None:
        entries = record.files.items()
        return next((name for name, entry in entries if file_hash(folder / name) != entry["sha256"]), None)

    def already(self, folder: Path, files: Files, varying: Collection[str]) -> Record | None:  # noqa: ARG002
        """`Backend.already`. No two build at once here, so that no file may vary."""
        old = read_record(folder / RECORD)
        if old is not None and old.files != files:
            raise refuse_other(folder)
        return old

    def payload(self, folder: Path, files: Files) -> tuple[Files, Files]:  # noqa: ARG002
        return files, {}

    def commit(self, folder: Path, record: Record, sent: Files) -> bool:  # noqa: ARG002
        """`Backend.commit`; the files are there, and are on disk before the record is."""
        flush(folder, record.files)
        write_text(folder / RECORD, record.text)
        return True

    def quarantine(self, folder: Path, to: str) -> None:
        target = self.root / to
        make_folder(target.parent)
        with readable_write_errors(folder):
            folder.rename(target)
        forget(folder)
        self._names = {}


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
