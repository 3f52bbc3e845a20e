"""A store in an object store. Its layout is in a mirror on this machine, into which files come when they are read."""

from __future__ import annotations

import shutil
from collections.abc import Collection, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path
from typing import Any

from sftlab.files import write_text
from sftlab.store.backend import DAMAGED, Files, refuse_other
from sftlab.store.locks import LOCKS
from sftlab.store.mirror import READERS, STREAMS, Mirror, fetch_record, forget, is_committed, pushed
from sftlab.store.object_locks import LeaseLocks
from sftlab.store.objects import Found
from sftlab.store.record import RECORD, WORK, Damaged, Record, Step, is_draft, labelled, read_record

SMALL = 2**20  # bytes of a file that is read rather than believed, see `Bucket.payload`
Listing = dict[str, dict[str, Found]]  # by a result's folder, then by path within it


class Bucket:
    """The backend of results in an object store."""

    def __init__(self, mirror: Mirror) -> None:
        self.mirror = mirror
        self._forget()

    def __reduce__(self) -> tuple[type[Bucket], tuple[Mirror]]:
        return Bucket, (self.mirror,)

    def _forget(self) -> None:
        self._found: dict[Path, Record] = {}  # results stay, so that a known one need not be asked for again
        self._listings: dict[str, Listing] = {}  # by stage, within `listed`
        self._labels: dict[str, str] = {}  # by id

    @property
    def root(self) -> Path:
        return self.mirror.root

    @property
    def locks(self) -> LeaseLocks:
        return LeaseLocks(self.mirror.address)

    @property
    def reads_only(self) -> bool:
        return False  # the object store says so when something is written

    def __str__(self) -> str:
        return str(self.mirror.address)

    def stages(self) -> list[str]:
        return sorted(self.mirror.objects.children() - {DAMAGED, LOCKS})

    def names(self, stage: str) -> set[str]:
        there = self._listings.get(stage)
        return self.mirror.objects.children(stage) if there is None else set(there)

    def label(self, step: Step) -> str:
        if step.id not in self._labels:
            self._labels[step.id] = self._label(step)
        return self._labels[step.id]

    def _label(self, step: Step) -> str:
        def has_record(name: str) -> bool:
            listing = self._listings.get(step.stage)
            if listing is None:
                return is_committed(self.mirror, self.root / step.stage / name)
            return RECORD in listing.get(name, {})

        return step.folder if has_record(step.folder) else labelled(step, self.names(step.stage), has_record)

    @contextmanager
    def listed(self, stages: Collection[str], names_only: bool) -> Iterator[None]:
        self._listings = {stage: self._list_stage(stage) for stage in stages}
        for stage, found in self._listings.items() if not names_only else ():
            self.records(self.root / stage / name for name in found if RECORD in found[name])
        try:
            yield
        finally:
            self._listings = {}

    def _list_stage(self, stage: str) -> Listing:
        found: Listing = {}
        for name, there in self.mirror.objects.below(stage).items():
            folder, _, path = name.partition("/")[2].partition("/")
            found.setdefault(folder, {})[path] = there
        return found

    def _list_folder(self, folder: Path) -> dict[str, Found]:
        """All objects of one result, by path within its folder."""
        below = f"{self.mirror.name(folder)}/"
        found = self.mirror.objects.below(below.rstrip("/"))
        return {name.removeprefix(below): there for name, there in found.items()}

    def _listing_of(self, folder: Path) -> dict[str, Found]:
        """The objects of one result, of the listing of its stage if there is one."""
        listing = self._listings.get(folder.parent.name)
        return self._list_folder(folder) if listing is None else listing.get(folder.name, {})

    def is_committed(self, folder: Path) -> bool:
        if folder.parent.name in self._listings:
            return RECORD in self._listing_of(folder)
        try:
            return self.record(folder) is not None
        except Damaged:
            return False

    def is_begun(self, folder: Path) -> bool:
        return bool(self._listing_of(folder))

    def record(self, folder: Path) -> Record | None:
        if folder not in self._found:
            record = self._sound(folder, self._listing_of(folder))
            if record is None:
                return None
            self._found[folder] = record
        return self._found[folder]

    def record_now(self, folder: Path) -> Record | None:
        return self._sound(folder, self._list_folder(folder))

    def _sound(self, folder: Path, there: Mapping[str, Found]) -> Record | None:
        """The record of a result, given its listing."""
        if RECORD not in there:
            return None
        record = _record_here(folder, there[RECORD].bytes) or fetch_record(self.mirror, folder)
        if record is not None:
            for name, entry in record.files.items():
                size = there[name].bytes if name in there else None
                if size != entry["bytes"]:
                    has = "is missing" if size is None else f"has {size:,} bytes and not {entry['bytes']:,}"
                    raise Damaged(folder, f"{name} {has}")
        return record

    def records(self, folders: Iterable[Path]) -> list[Record]:
        """`Backend.records`, many at a time."""

        def one(folder: Path) -> Record | None:
            try:
                return _record_here(folder, None) or fetch_record(self.mirror, folder)
            except Damaged:
                return None

        with ThreadPoolExecutor(READERS) as pool:
            return [record for record in pool.map(one, folders) if record is not None]

    def wrong_file(self, folder: Path, record: Record) -> str | None:
        entries = record.files.items()
        return next((name for name, entry in entries if self._entry(folder / name) != entry), None)

    def already(self, folder: Path, files: Files, varying: Collection[str]) -> Record | None:
        old = self.record_now(folder)
        if old is None:
            return None
        files = {name: entry for name, entry in files.items() if name not in varying}
        # Only what this builder knows of: another's workers may have sent the rest.
        if {name: entry for name, entry in old.files.items() if name in files} != files:
            raise refuse_other(folder)
        return old

    def payload(self, folder: Path, files: Files) -> tuple[Files, Files]:
        """`Backend.payload`: with what workers have sent already, which need not be on this machine.

        What was sent is finished; other local files may be remnants of a run that was killed. A second builder,
        whose predecessor was only paused, may have sent some of the files too, or be about to. So its note may be with
        the other's bytes, or not be written yet: what small files have, and files without a note, is read.
        """
        there, notes = self._list_folder(folder), pushed(self.mirror, folder)

        def entry(name: str) -> tuple[str, dict[str, Any] | None]:
            note = notes.get(name)
            if note is not None and note["bytes"] == there[name].bytes > SMALL:
                return name, dict(note)
            return name, self._entry(folder / name)

        names = [
            name
            for name in there
            if name != RECORD
            and not name.startswith(f"{WORK}/")
            and not is_draft(Path(name))
            and (name in notes or name not in files)
        ]
        with ThreadPoolExecutor(READERS) as pool:
            sent = {name: found for name, found in pool.map(entry, names) if found is not None}
        return dict(sorted({**files, **sent}.items())), sent

    def _entry(self, path: Path) -> dict[str, Any] | None:
        """Bytes and hash of an object as it is now; None where there is none."""
        digest, size = sha256(), 0
        try:
            for chunk in self.mirror.objects.chunks(self.mirror.name(path)):
                digest.update(chunk)
                size += len(chunk)
        except FileNotFoundError:
            return None
        return {"bytes": size, "sha256": digest.hexdigest()}

    def commit(self, folder: Path, record: Record, sent: Files) -> bool:
        """`Backend.commit`: send the files that are not there yet, then the record; what else is there is deleted.

        False, with nothing more written, as soon as another's record is seen: what is committed first is kept. It is
        looked for before each upload and before the record's write. What is left is a process that is paused for
        `DEAD_SECONDS` of its lease between such a look and the write that follows: that one write comes too late, and
        reading finds by the record's hashes whether its bytes were others.
        """
        mirror = self.mirror
        objects, name = mirror.objects, mirror.name(folder)

        def send(file: str) -> bool:
            if is_committed(mirror, folder):
                return False
            objects.upload(folder / file, f"{name}/{file}")
            return True

        with ThreadPoolExecutor(STREAMS) as pool:
            if not all(list(pool.map(send, [file for file in record.files if file not in sent]))):
                return False
        there = self._list_folder(folder)
        if RECORD in there:
            return False
        for file in there:
            if file not in record.files and not file.startswith(f"{WORK}/"):
                objects.delete(f"{name}/{file}")
        if is_committed(mirror, folder):
            return False
        objects.write(f"{name}/{RECORD}", record.text.encode())
        write_text(folder / RECORD, record.text)
        objects.delete_below(f"{name}/{WORK}")
        return True

    def quarantine(self, folder: Path, to: str) -> None:
        """`Backend.quarantine`: the record is moved first, so that a kill in between leaves an unfinished result."""
        name = self.mirror.name(folder)
        for file in sorted(self._list_folder(folder), key=lambda file: file != RECORD):
            self.mirror.objects.move(f"{name}/{file}", f"{to}/{file}")
        shutil.rmtree(folder, ignore_errors=True)
        forget(folder)
        self._forget()


def _record_here(folder: Path, size: int | None) -> Record | None:
    """The copy of a record in the mirror, if it is whole and of this size."""
    try:
        if size is not None and (folder / RECORD).stat().st_size != size:
            return None
        return read_record(folder / RECORD)
    except (FileNotFoundError, Damaged):
        return None
