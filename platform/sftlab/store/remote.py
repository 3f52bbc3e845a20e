"""What a store does where its results are in an object store."""

from __future__ import annotations

import json
import os
import shutil
import socket
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache
from hashlib import sha256
from itertools import count
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote

from sftlab.config.documents import parse_json
from sftlab.files import write_text
from sftlab.store.leases import Leases
from sftlab.store.local import Files
from sftlab.store.mirror import READERS, STREAMS, Mirror, fetch_record, forget, is_committed, pushed
from sftlab.store.objects import Address, Found, Objects, open_objects
from sftlab.store.record import RECORD, WORK, Damaged, Record, is_draft, read_record

LOCKS = "locks"
SMALL = 2**20  # bytes of a file that is read rather than believed, see `payload`
Listing = dict[str, dict[str, Found]]  # by a result's folder, then by path within it


@dataclass(frozen=True)
class ObjectClaims:
    """The claims of `leases`, all directly below `locks/`: deleting an object may leave its folder behind."""

    objects: Objects
    beats: count[int]

    def states(self, lock: str) -> dict[str, object]:
        found = self.objects.below(LOCKS).items()
        claims = {
            unquote(name.removeprefix(f"{LOCKS}/")): (there.bytes, there.changed) for name, there in found
        }
        return {name: state for name, state in claims.items() if name.startswith(f"{lock}/")}

    def write(self, name: str) -> None:
        content = {"beat": next(self.beats), "host": socket.gethostname(), "process": os.getpid()}
        self.objects.write(f"{LOCKS}/{quote(name, safe='')}", json.dumps(content).encode())

    def read(self, name: str) -> dict[str, Any]:
        content = self.objects.read(f"{LOCKS}/{quote(name, safe='')}")
        found = parse_json(content or b"{}", name, "its builder writes it again.")
        return found if isinstance(found, dict) else {}

    def delete(self, name: str) -> None:
        self.objects.delete(f"{LOCKS}/{quote(name, safe='')}")


@cache
def leases_of(address: Address) -> Leases:
    """This process's locks in the store at an address."""
    return Leases(ObjectClaims(open_objects(address), count()))


def list_stage(mirror: Mirror, stage: str) -> Listing:
    """All objects of a stage's results, from one listing."""
    found: Listing = {}
    for name, there in mirror.objects.below(stage).items():
        _, _, below = name.partition("/")
        folder, _, path = below.partition("/")
        found.setdefault(folder, {})[path] = there
    return found


def list_folder(mirror: Mirror, folder: Path) -> dict[str, Found]:
    """All objects of one result, by path within its folder."""
    below = f"{mirror.name(folder)}/"
    return {
        name.removeprefix(below): there for name, there in mirror.objects.below(below.rstrip("/")).items()
    }


def sound_record(mirror: Mirror, folder: Path, there: Mapping[str, Found]) -> Record | None:
    """The record of a result, given its listing; None where it is not committed.

    Raises Damaged where the record is none, or a file is missing or has another size.
    """
    if RECORD not in there:
        return None
    record = _record_here(folder, there[RECORD].bytes) or fetch_record(mirror, folder)
    if record is not None:
        for name, entry in record.files.items():
            size = there[name].bytes if name in there else None
            if size != entry["bytes"]:
                has = "is missing" if size is None else f"has {size:,} bytes and not {entry['bytes']:,}"
                raise Damaged(folder, f"{name} {has}")
    return record


def records_of(mirror: Mirror, folders: Iterable[Path]) -> list[Record]:
    """Records of committed results, many at a time; those that are none are left out."""

    def one(folder: Path) -> Record | None:
        try:
            return _record_here(folder, None) or fetch_record(mirror, folder)
        except Damaged:
            return None

    with ThreadPoolExecutor(READERS) as pool:
        return [record for record in pool.map(one, folders) if record is not None]


def payload(mirror: Mirror, folder: Path, local: Files) -> tuple[Files, Files]:
    """All files of a result that is to be committed, and those of them that workers have sent already.

    What was sent is finished; other local files may be remnants of a run that was killed. A second builder,
    whose predecessor was only paused, may have sent some of the files too, or be about to. So its note may be beside
    the other's bytes, or not be written yet: what small files have, and files without a note, is read.
    """
    there, notes = list_folder(mirror, folder), pushed(mirror, folder)

    def entry(name: str) -> tuple[str, dict[str, Any] | None]:
        note = notes.get(name)
        if note is not None and note["bytes"] == there[name].bytes > SMALL:
            return name, dict(note)
        return name, _entry(mirror, f"{mirror.name(folder)}/{name}")

    names = [
        name
        for name in there
        if name != RECORD
        and not name.startswith(f"{WORK}/")
        and not is_draft(Path(name))
        and (name in notes or name not in local)
    ]
    with ThreadPoolExecutor(READERS) as pool:
        sent = {name: found for name, found in pool.map(entry, names) if found is not None}
    return dict(sorted({**local, **sent}.items())), sent


def _entry(mirror: Mirror, name: str) -> dict[str, Any] | None:
    """Bytes and hash of an object as it is now; None where there is none."""
    digest, size = sha256(), 0
    try:
        for chunk in mirror.objects.chunks(name):
            digest.update(chunk)
            size += len(chunk)
    except FileNotFoundError:
        return None
    return {"bytes": size, "sha256": digest.hexdigest()}


def commit(mirror: Mirror, folder: Path, record: Record, sent: Files) -> bool:
    """Send the files that are not there yet, then the record; what else is there is deleted.

    False, with nothing more written, as soon as another's record is seen: what is committed first is kept. It is
    looked for before each upload and before the record's write. What is left is a process that is paused for
    `DEAD_SECONDS` of its lease between such a look and the write that follows: that one write comes too late, and
    reading finds by the record's hashes whether its bytes were others.
    """
    objects, name = mirror.objects, mirror.name(folder)

    def send(file: str) -> bool:
        if is_committed(mirror, folder):
            return False
        objects.upload(folder / file, f"{name}/{file}")
        return True

    with ThreadPoolExecutor(STREAMS) as pool:
        if not all(list(pool.map(send, [file for file in record.files if file not in sent]))):
            return False
    there = list_folder(mirror, folder)
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


def quarantine(mirror: Mirror, folder: Path, to: str) -> None:
    """Move all objects of a result below `to`, the record first; a kill in between leaves an unfinished result."""
    name = mirror.name(folder)
    files = sorted(list_folder(mirror, folder), key=lambda file: file != RECORD)
    for file in files:
        mirror.objects.move(f"{name}/{file}", f"{to}/{file}")
    shutil.rmtree(folder, ignore_errors=True)
    forget(folder)


def wrong_file(mirror: Mirror, folder: Path, record: Record) -> str | None:
    """The first file of a result whose bytes in the object store are not those recorded; reads all of them."""
    found = ((n, _entry(mirror, f"{mirror.name(folder)}/{n}") == entry) for n, entry in record.files.items())
    return next((name for name, right in found if not right), None)


def _record_here(folder: Path, size: int | None) -> Record | None:
    """The copy of a record in the mirror, if it is whole and of this size."""
    try:
        if size is not None and (folder / RECORD).stat().st_size != size:
            return None
        return read_record(folder / RECORD)
    except (FileNotFoundError, Damaged):
        return None
