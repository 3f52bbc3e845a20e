"""Files of an object store on this machine: fetched and checked before they are read, sent when they are finished.

All stages and workers read and write plain files. Where the store is an object store, these are in a *mirror*: a folder
of the same layout whose name is the address itself. So a path below it says all there is to know, and a worker on
another machine that is handed the path can `pull` what it reads and `push` what it has written. For any other path
`push` does nothing, and `pull` only checks.
"""

from __future__ import annotations

import fcntl
import json
import os
import re
import shutil
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import lru_cache
from hashlib import sha256
from pathlib import Path
from typing import TypeVar
from urllib.parse import quote, unquote

from sftlab.errors import UserError
from sftlab.files import home_folder, make_folder, readable_write_errors, write_text
from sftlab.store.fingerprint import file_hash
from sftlab.store.hashes import Stamp, quick_stamp
from sftlab.store.objects import Address, Found, Objects, open_objects, parse_address
from sftlab.store.record import (
    RECORD,
    STEP_FOLDER,
    WORK,
    Damaged,
    Record,
    check_file,
    file_entry,
    is_draft,
    parse_record,
    read_record,
)

PUSHED = f"{WORK}/pushed"  # sizes and hashes of the files that workers on other machines have sent
HASH_LIMIT = "SFTLAB_HASH_UP_TO_GIB"
"""Environment variable: files above so many GiB that are on disk already are not hashed when a process first reads
them; unset: 1. The weights of large models are in such files, and reading them twice doubles the load on a shared
mount. They are hashed while they are downloaded, and by `sftlab verify`."""
STREAMS = 8  # files transferred at once
READERS = 32  # small objects read at once
_LONGEST_NAME = 255
_MARK = "~3A~2F~2F"  # :// as written in a mirror's name
_NAME = re.compile(f"(?:s3|gs){_MARK}")

Where = TypeVar("Where", str, Path)
_checked: dict[str, Stamp] = {}  # files whose bytes this process has found to be right, as they were then


@dataclass(frozen=True)
class Mirror:
    """The local folder `root` of the object store at `address`."""

    address: Address
    root: Path

    @property
    def objects(self) -> Objects:
        return open_objects(self.address)

    def name(self, path: Path) -> str:
        """The object's name for a path of the mirror."""
        return path.relative_to(self.root).as_posix()


def display_path(path: Where) -> str:
    """What a path is called in records, the same on every machine: of a mirror the object's address."""
    mirror = mirror_of(Path(path))
    if mirror is None:
        return str(path)
    prefix = f"{mirror.address.prefix}/{mirror.name(Path(path))}".strip("/")
    return str(replace(mirror.address, prefix=prefix, options=()))


def default_mirrors() -> Path:
    """Where mirrors are if `runtime.mirror` names no other folder."""
    cache = os.environ.get("XDG_CACHE_HOME")
    return (Path(cache) if cache else home_folder() / ".cache") / "sftlab" / "mirror"


def make_mirror(address: Address, below: Path) -> Mirror:
    """The mirror of an address. Raises UserError where the address is too long for a folder's name."""
    # Not %, which some readers of paths take for the escape of a URL, nor =, which pyarrow takes for a partition.
    name = quote(str(address), safe="").replace("~", "%7E").replace("%", "~")
    if len(name) > _LONGEST_NAME:
        raise UserError(
            "is longer than a folder's name may be", place=address, advice="choose a shorter prefix."
        )
    return Mirror(address, below.resolve() / name)


def mirror_of(path: Path) -> Mirror | None:
    """The mirror that a path is in; None for all other paths."""
    return _mirror_of(str(path)) if _MARK in str(path) else None


@lru_cache(maxsize=1024)
def _mirror_of(text: str) -> Mirror | None:
    path = Path(text)
    for place in (path, *path.parents):
        if _NAME.match(place.name):
            return Mirror(parse_address(unquote(place.name.replace("~", "%"))), place)
    return None


def pull(path: Where, again: bool = False) -> Where:
    """Have a file, or a folder with all below it, on this machine; returns the path.

    Files of a committed result are checked against its record: while they are downloaded, and when this process
    first reads them (see `HASH_LIMIT`). Parts of unfinished results that are here already are downloaded
    `again` if asked for. What is nowhere is no error here.

    Raises Damaged where a committed file has other bytes than recorded, and UserError where the object store does
    not answer.
    """
    here = Path(path)
    if _known(here):
        return path
    mirror = mirror_of(here)
    folder = _step_folder(here, mirror)
    record = None if folder is None else _record(folder, mirror)
    if record is not None and folder is not None:
        _have(folder, _files_at(record, folder, here), mirror)
    elif mirror is not None and mirror.root != here:
        with _alone(mirror, here):
            _pull_unfinished(mirror, here, again)
    return path


def pull_all(paths: Iterable[Path]) -> None:
    """`pull` many paths at once."""
    wanted = [path for path in paths if mirror_of(path) is not None]
    with ThreadPoolExecutor(READERS) as pool:
        for done in [pool.submit(pull, path) for path in wanted]:
            done.result()


def push(path: Path) -> None:
    """Send a finished file, or all files of a folder, to the object store, if the path is in a mirror.

    Of files that belong to a result the hash is sent too, as another machine may commit the result. Nothing is
    sent of a result that is committed: a process that was paused must not write over its successor's. That is looked
    for before each file, so that at most the files then on their way come too late.
    """
    mirror = mirror_of(path)
    if mirror is None:
        return
    folder = _step_folder(path, mirror)
    if folder is not None and is_committed(mirror, folder):
        return
    found = [path] if path.is_file() else sorted(file for file in path.rglob("*") if file.is_file())
    wanted = [file for file in found if not is_draft(file.relative_to(path.parent))]
    with ThreadPoolExecutor(STREAMS) as pool:
        for done in [pool.submit(_push_file, mirror, folder, file) for file in wanted]:
            done.result()


def is_committed(mirror: Mirror, folder: Path) -> bool:
    """Whether the object store has a record of a result now."""
    return mirror.objects.info(f"{mirror.name(folder)}/{RECORD}") is not None


def is_sent(path: Path) -> bool:
    """Whether a file of this machine needs no `push`: the object store has it, or there is none."""
    mirror = mirror_of(path)
    return mirror is None or mirror.objects.info(mirror.name(path)) is not None


def drop(path: Path) -> None:
    """Delete a part that is no longer needed, or a folder of them: here and in the object store."""
    shutil.rmtree(path, ignore_errors=True)
    if path.is_file():
        path.unlink()
    mirror = mirror_of(path)
    if mirror is None:
        return
    name, folder = mirror.name(path), _step_folder(path, mirror)
    if mirror.objects.info(name) is not None:
        mirror.objects.delete(name)
    else:
        mirror.objects.delete_below(name)
    if folder is not None:
        mirror.objects.delete(_note(mirror, folder, path))


def pushed(mirror: Mirror, folder: Path) -> dict[str, dict[str, int | str]]:
    """What workers have sent of a result: bytes and sha256 by path within the result's folder.

    Raises UserError where a note of it is damaged.
    """
    notes = f"{mirror.name(folder)}/{PUSHED}/"
    found = {}
    for name in mirror.objects.below(notes.rstrip("/")):
        content = mirror.objects.read(name)
        if content is not None:
            file = unquote(name.removeprefix(notes))
            found[file] = parse_note(content, file, display_path(mirror.root / name))
    return found


def parse_note(content: bytes, file: str, where: str) -> dict[str, int | str]:
    """The note of one sent file, as read from `where`. Raises UserError where it is none."""
    try:
        note: dict[str, int | str] = json.loads(content)
        check_file(file, note)
    except (ValueError, TypeError, AttributeError, RecursionError) as error:
        raise UserError(
            f"is no note of a sent file ({error})", place=where, advice="delete it, then run again."
        ) from error
    return note


def _push_file(mirror: Mirror, folder: Path | None, file: Path) -> None:
    noted = folder is not None and file.relative_to(folder).parts[0] not in (WORK, RECORD)
    if folder is None or not noted:
        mirror.objects.upload(file, mirror.name(file))
        return
    note = file_entry(file)
    if is_committed(mirror, folder):
        return
    mirror.objects.delete(_note(mirror, folder, file))  # never a note with bytes of another file
    mirror.objects.upload(file, mirror.name(file))
    mirror.objects.write(_note(mirror, folder, file), json.dumps(note).encode())


def _note(mirror: Mirror, folder: Path, file: Path) -> str:
    return f"{mirror.name(folder)}/{PUSHED}/{quote(file.relative_to(folder).as_posix(), safe='')}"


def _step_folder(path: Path, mirror: Mirror | None) -> Path | None:
    """The folder of the result that a path belongs to, if it has the form of one."""
    if mirror is not None:
        parts = path.relative_to(mirror.root).parts[:2]
        there = len(parts) == 2 and parts[0] != "sweeps" and STEP_FOLDER.fullmatch(parts[1])
        return mirror.root.joinpath(*parts) if there else None
    for place in (path, *path.parents[:3]):
        if STEP_FOLDER.fullmatch(place.name) and (place / RECORD).is_file():
            return place
    return None


def result_of(path: Path) -> Path | None:
    """The folder of the committed result that a path on this machine belongs to; None where it belongs to none."""
    folder = _step_folder(path, mirror_of(path))
    return folder if folder is not None and (folder / RECORD).is_file() else None


def _record(folder: Path, mirror: Mirror | None) -> Record | None:
    """The record of a result's folder, from this machine if it is here; None where it is no committed result."""
    try:
        record = _known_record(folder, quick_stamp(folder / RECORD))
    except FileNotFoundError:
        return None if mirror is None else fetch_record(mirror, folder)
    except Damaged:
        if mirror is None:
            raise
        return fetch_record(mirror, folder)
    return record if record is None or record.stage == folder.parent.name else None


def fetch_record(mirror: Mirror, folder: Path) -> Record | None:
    """The record of a result in the object store, kept here too. Raises Damaged where it is not one."""
    content = mirror.objects.read(f"{mirror.name(folder)}/{RECORD}")
    if content is None:
        (folder / RECORD).unlink(missing_ok=True)
        return None
    record = parse_record(content, folder / RECORD)
    write_text(folder / RECORD, content.decode())
    return record


@lru_cache(maxsize=256)
def _known_record(folder: Path, state: Stamp) -> Record | None:
    del state  # part of the key, so that a record that is replaced is read again
    return read_record(folder / RECORD)


def _files_at(record: Record, folder: Path, path: Path) -> dict[str, dict[str, int | str]]:
    """The recorded files that a path of the folder names, or that are below it."""
    at = path.relative_to(folder).as_posix()
    return {
        name: entry for name, entry in record.files.items() if at in (".", name) or name.startswith(f"{at}/")
    }


def _have(folder: Path, files: dict[str, dict[str, int | str]], mirror: Mirror | None) -> None:
    """Have committed files here, with the right bytes."""
    left = {name: entry for name, entry in files.items() if not _known(folder / name)}
    if mirror is None:
        for name, entry in left.items():
            if not _is_whole(folder / name, entry):
                raise Damaged(folder, f"{name} has other bytes than recorded")
        return
    if not left:
        return
    with _alone(mirror, folder), ThreadPoolExecutor(STREAMS) as pool:
        for done in [pool.submit(_have_one, folder, name, entry, mirror) for name, entry in left.items()]:
            done.result()


def _have_one(folder: Path, name: str, entry: dict[str, int | str], mirror: Mirror) -> None:
    target = folder / name
    if _is_whole(target, entry):
        return
    got = mirror.objects.download(mirror.name(target), target)
    if got != (entry["bytes"], entry["sha256"]):
        # The local copy of the record may be of a result that was quarantined and built again.
        record = fetch_record(mirror, folder)
        entry = record.files.get(name, {}) if record is not None else {}
        if got is None or got != (entry.get("bytes"), entry.get("sha256")):
            target.unlink(missing_ok=True)
            raise Damaged(folder, f"{name} has other bytes than recorded")
    _checked[str(target)] = quick_stamp(target)


def _known(file: Path) -> bool:
    try:
        return str(file) in _checked and _checked[str(file)] == quick_stamp(file)
    except FileNotFoundError:
        return False


def _is_whole(file: Path, entry: dict[str, int | str]) -> bool:
    """Whether a file has its recorded size and, unless it is large, its recorded hash."""
    try:
        state = quick_stamp(file)
        size = state.bytes
        whole = size == entry["bytes"] and (not is_hashed(size) or file_hash(file) == entry["sha256"])
    except FileNotFoundError:
        return False
    if whole:
        _checked[str(file)] = state
    return whole


def is_hashed(size: int) -> bool:
    """Whether a file of so many bytes is hashed when it is first read (see `HASH_LIMIT`)."""
    return size <= float(os.environ.get(HASH_LIMIT, "1")) * 2**30


def forget(folder: Path) -> None:
    """Check the files of a folder again when they are next read."""
    for name in [name for name in _checked if name.startswith(f"{folder}/")]:
        _checked.pop(name, None)


def _pull_unfinished(mirror: Mirror, path: Path, again: bool) -> None:
    """Download what the object store has at or below a path and this machine has not."""
    if path.is_file() and not again:
        return
    objects, name = mirror.objects, mirror.name(path)
    found: dict[str, Found] = objects.below(name)
    if not found and (single := objects.info(name)) is not None:
        found = {name: single}

    def have(each: str, there: Found) -> None:
        target = mirror.root / each
        if f"/{PUSHED}/" in each or not _within(target, mirror.root):
            return
        if again or not target.is_file() or target.stat().st_size != there.bytes:
            objects.download(each, target)

    with ThreadPoolExecutor(READERS) as pool:
        for done in [pool.submit(have, *item) for item in found.items()]:
            done.result()


def _within(path: Path, root: Path) -> bool:
    """Whether a name of an object, whoever wrote it, stays within the mirror."""
    return ".." not in path.parts and path.is_relative_to(root)


@contextmanager
def _alone(mirror: Mirror, path: Path) -> Iterator[None]:
    """One process of this machine at a time fetches a path; the others then find it."""
    locks = mirror.root / ".pulling"
    make_folder(locks)
    name = sha256(mirror.name(path).encode()).hexdigest()[:16]
    with readable_write_errors(locks):
        held = (locks / name).open("w")
    with held:
        fcntl.flock(held, fcntl.LOCK_EX)
        yield
