"""Hashes of files outside the store: computed from one steady state of a file, and remembered as a speed-up.

A file is identified by its content alone. Reading 140 GB for every plan takes too long, so the SHA-256 of a large file
is remembered together with its *stamp*: device, inode, size, time of modification and time of change (ctime). A program
can set the modification time to any value; the kernel alone sets the time of change, on every write, rename, link and
change of attributes. A remembered hash is used only where all of this holds:

1. The file has at least `SMALLEST` bytes. Smaller files are read every time.
2. The resolved path (links followed) and the whole stamp are those of the entry. The stamp is that of the opened file,
   which makes a network mount ask its server.
3. The entry was made by this machine since it was started (its boot id), so that a device number means the same device.
4. The checksum of the entry is right.

An entry is made only where all of this holds:

5. The file system sets the time of change itself (`KEEPS_CTIME`). On FUSE, FAT, tmpfs and unknown ones every file is
   read every time.
6. The time of change is not a whole second, as coarse times are, and not in the future.
7. The stamp was the same before, while and after the file was read, and was first seen `SETTLE_SECONDS` before the
   reading began, by this process's monotonic clock. A change during or after the reading therefore has a later time
   of change than the stamp, whatever the clocks of a server show: it falls outside the granularity of its times.

What is left: a program that has the file mapped for writing, and has written to the page before, may change it without
a new time of change. `sftlab verify` forgets all entries.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cache
from hashlib import sha256
from pathlib import Path
from typing import Any

from sftlab.errors import UserError
from sftlab.files import may_write, write_text
from sftlab.store.fingerprint import CHUNK, canonical_json

HASHES = "hashes.json"
SMALLEST = 64 * 2**20  # bytes; reading less takes a fraction of a second
SETTLE_SECONDS = 2.0  # more than the granularity of any file system's times of change
ATTEMPTS = 3  # readings of a file that changes meanwhile
_LOCAL = "ext2 ext3 ext4 xfs btrfs zfs f2fs bcachefs overlay"
_SHARED = "nfs nfs4 lustre ceph gpfs"
KEEPS_CTIME = frozenset(f"{_LOCAL} {_SHARED}".split())
_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
_MOUNTS = Path("/proc/self/mountinfo")


@dataclass(frozen=True)
class Stamp:
    """What a file system says of a file's state."""

    device: int
    inode: int
    bytes: int
    mtime_ns: int
    ctime_ns: int


@dataclass(frozen=True)
class Hashed:
    """A file, by its path as given, with the SHA-256 of its bytes and the stamp that they had."""

    path: Path
    sha256: str
    stamp: Stamp


def stamp(path: Path) -> Stamp:
    """A file's stamp now; it is opened, so that a network mount asks its server. Raises OSError."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    try:
        return stamp_of(os.fstat(descriptor))
    finally:
        os.close(descriptor)


def quick_stamp(path: Path) -> Stamp:
    """A file's stamp as this machine knows it, without opening it. Raises OSError."""
    return stamp_of(path.stat())


def stamp_of(found: os.stat_result) -> Stamp:
    return Stamp(found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns)


def steady_hash(path: Path) -> Hashed:
    """SHA-256 of a file whose stamp is the same before, while and after it is read.

    Raises UserError where it changes each time that it is read, and OSError where it cannot be read.
    """
    for _ in range(ATTEMPTS):
        digest = sha256()
        with path.open("rb") as stream:
            before = stamp_of(os.fstat(stream.fileno()))
            while chunk := stream.read(CHUNK):
                digest.update(chunk)
            after = stamp_of(os.fstat(stream.fileno()))
        if before == after == stamp(path):
            return Hashed(path, digest.hexdigest(), before)
    raise UserError(
        "changes while it is read, so that no hash identifies its content",
        place=path,
        expected="a finished file",
        advice="wait until it is complete, then run again.",
    )


class FileHashes:
    """SHA-256 of files, those of large ones remembered in the file `memory`; see the rules of this module.

    machine: what device numbers are valid for, None where that is not known; keeps_ctime: rule 5 for a path.
    """

    def __init__(
        self,
        memory: Path,
        smallest: int = SMALLEST,
        settle_seconds: float = SETTLE_SECONDS,
        machine: str | None = None,
        keeps_ctime: Callable[[Path], bool] | None = None,
    ) -> None:
        self.memory, self.smallest, self.settle_seconds = memory, smallest, settle_seconds
        self.machine = machine if machine is not None else boot_id()
        self.keeps_ctime = keeps_ctime if keeps_ctime is not None else _keeps_ctime
        self.files, self.folders = _read(memory)

    def of(self, paths: Sequence[Path]) -> list[Hashed]:
        """Hashes of files, in their order. Raises as `steady_hash`."""
        seen = time.monotonic()
        found: dict[Path, Hashed] = {}
        wanted: dict[Path, Stamp] = {}
        for path in paths:
            first = stamp(path)
            known = self._known(path, first)
            if known is not None:
                found[path] = known
            elif self._may_be_remembered(path, first):
                wanted[path] = first
        fresh = {path: steady_hash(path) for path in paths if path not in found and path not in wanted}
        if wanted:
            time.sleep(max(0.0, seen + self.settle_seconds - time.monotonic()))
        for path, first in wanted.items():
            fresh[path] = hashed = steady_hash(path)
            if hashed.stamp == first and _is_past(first):
                self.files[str(path.resolve())] = self.entry(path, hashed)
        if wanted:
            self._save()
        return [found[path] if path in found else fresh[path] for path in paths]

    def saw_folder(self, content: str, folder: Path) -> None:
        """Remember where content was seen: a place to look, which is never believed without hashing it.

        A file in the cache of a hub is a link, whose own place says what it is of.
        """
        place = str(folder.resolve() if folder.is_dir() else folder.parent.resolve() / folder.name)
        if self.folders.get(content) != place:
            self.folders[content] = place
            self._save()

    def forget(self) -> None:
        """Forget all hashes of files, so that each is read again."""
        if self.files:
            self.files = {}
            self._save()

    def _known(self, path: Path, now: Stamp) -> Hashed | None:
        entry = self.files.get(str(path.resolve()))
        if entry is None or now.bytes < self.smallest or self.machine is None:
            return None
        right = entry == self.entry(path, Hashed(path, str(entry.get("sha256")), now))
        return Hashed(path, entry["sha256"], now) if right else None

    def entry(self, path: Path, hashed: Hashed) -> dict[str, Any]:
        entry = {"sha256": hashed.sha256, "machine": self.machine, **asdict(hashed.stamp)}
        text = canonical_json({"path": str(path.resolve()), **entry})
        return entry | {"checksum": sha256(text.encode(errors="surrogateescape")).hexdigest()}

    def _may_be_remembered(self, path: Path, now: Stamp) -> bool:
        return (
            self.machine is not None
            and now.bytes >= self.smallest
            and now.ctime_ns % 1_000_000_000 != 0
            and self.keeps_ctime(path)
        )

    def _save(self) -> None:
        """Write what is remembered; nothing is where the store is another's, who may read it alone."""
        if may_write(self.memory.parent):
            write_text(self.memory, json.dumps({"files": self.files, "folders": self.folders}, indent=1))


def _is_past(found: Stamp) -> bool:
    return found.ctime_ns < time.time_ns()


def _read(memory: Path) -> tuple[dict[str, dict[str, Any]], dict[str, str]]:
    """What is remembered; what is missing, damaged or of another form is left out, as it can be computed again."""
    try:
        found: Any = json.loads(memory.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError, ValueError, RecursionError):
        return {}, {}
    if not isinstance(found, Mapping):
        return {}, {}
    files, folders = found.get("files"), found.get("folders")
    return (
        {path: dict(entry) for path, entry in files.items() if isinstance(entry, Mapping)}
        if isinstance(files, Mapping)
        else {},
        {content: place for content, place in folders.items() if isinstance(place, str)}
        if isinstance(folders, Mapping)
        else {},
    )


@cache
def boot_id() -> str | None:
    """What identifies this machine since it was started; None where the system has no such id."""
    try:
        return _BOOT_ID.read_text(encoding="ascii").strip() or None
    except (OSError, ValueError):
        return None


def _keeps_ctime(path: Path) -> bool:
    try:
        mounts = _MOUNTS.read_text(encoding="utf-8", errors="surrogateescape")
    except OSError:
        return False
    return file_system(path.resolve(), mounts) in KEEPS_CTIME


def file_system(path: Path, mounts: str) -> str | None:
    """The type of the file system that holds a resolved path, by the text of `/proc/self/mountinfo`; None if unknown.

    Of several mounts over one another the last one counts.
    """
    best, kind = -1, None
    for line in mounts.splitlines():
        before, _, after = line.partition(" - ")
        fields, after_fields = before.split(" "), after.split(" ")
        if len(fields) < 5 or not after_fields[0]:
            continue
        place = Path(fields[4].replace("\\040", " ").replace("\\011", "\t").replace("\\134", "\\"))
        if path.is_relative_to(place) and len(place.parts) >= best:
            best, kind = len(place.parts), after_fields[0]
    return kind
