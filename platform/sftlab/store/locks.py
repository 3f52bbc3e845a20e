"""The locks of a store, of single results and of the whole, and who holds the latter; those of a store in a folder."""

from __future__ import annotations

import fcntl
import json
import os
import socket
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Protocol
from uuid import uuid4

from sftlab.errors import UserError
from sftlab.files import make_folder, readable_write_errors

LOCKS = "locks"  # name of the folder of locks, below that of the store
NOTE = "building-"  # how the names of notes begin, which builders keep in a folder


@dataclass(frozen=True)
class Holder:
    """A process that builds in a store.

    since: when it began, in UTC, as ISO 8601. shared: whether others may build at the same time, as sweeps do.
    """

    host: str
    process: int
    since: str
    shared: bool


class Locks(Protocol):
    """The locks of a store. All methods raise UserError where its place has no locks."""

    def hold(self, name: str) -> AbstractContextManager[None]:
        """Hold a lock; waits for whoever holds it."""

    def try_hold(self, name: str) -> AbstractContextManager[bool]:
        """Hold a lock, or report at once (False) that another holds it."""

    def hold_whole(
        self, shared: bool, waiting: Callable[[], None] | None, busy: UserError
    ) -> AbstractContextManager[None]:
        """Hold the lock on everything. Where another has it: calls `waiting` and waits, or raises `busy` if None."""

    def holders(self) -> list[Holder]:
        """Who builds in the store now, by the time at which they began. Writes nothing and takes no lock."""


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


@dataclass(frozen=True)
class FolderLocks:
    """Locks by `flock` on files below the store's folder: they reach as far as those of the file system.

    They are freed when the process ends.
    """

    root: Path

    @contextmanager
    def hold(self, name: str) -> Iterator[None]:
        with self._file(name).open("w") as held:
            flock(held, fcntl.LOCK_EX)
            yield

    @contextmanager
    def try_hold(self, name: str) -> Iterator[bool]:
        with self._file(name).open("w") as held:
            try:
                flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                yield False
                return
            yield True

    @contextmanager
    def hold_whole(self, shared: bool, waiting: Callable[[], None] | None, busy: UserError) -> Iterator[None]:
        make_folder(self.root)
        kind = fcntl.LOCK_SH if shared else fcntl.LOCK_EX
        with (self.root / ".lock").open("w") as lock:
            try:
                flock(lock, kind | fcntl.LOCK_NB)
            except BlockingIOError:
                if waiting is None:
                    raise busy from None
                waiting()
                flock(lock, kind)
            with self._noted(shared):
                yield

    def holders(self) -> list[Holder]:
        return sorted(self._noted_holders(), key=lambda holder: holder.since)

    @contextmanager
    def _noted(self, shared: bool) -> Iterator[None]:
        """Keep a note of this process, locked for as long as the process lives; notes of dead ones are deleted."""
        for path, alive in self._notes():
            if not alive:
                path.unlink(missing_ok=True)
        note = self._file(f"{NOTE}{uuid4().hex}.json")
        holder = Holder(socket.gethostname(), os.getpid(), utc_text(datetime.now(UTC)), shared)
        # Under another name until it is locked, so that nobody takes it for the note of a dead process.
        hidden = note.with_name(f".{note.name}")
        with ExitStack() as opened:
            with readable_write_errors(note):
                file = opened.enter_context(hidden.open("w", encoding="utf-8"))
                flock(file, fcntl.LOCK_EX)
                json.dump(asdict(holder), file)
                file.flush()
                hidden.replace(note)
            try:
                yield
            finally:
                note.unlink(missing_ok=True)

    def _notes(self) -> Iterator[tuple[Path, bool]]:
        """The notes of builders, each with whether its process is alive."""
        for path in (self.root / LOCKS).glob(f"{NOTE}*"):
            try:
                with path.open() as file:
                    try:
                        flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
                    except BlockingIOError:
                        yield path, True
                    else:
                        yield path, False
            except FileNotFoundError:  # its process ends now
                continue

    def _noted_holders(self) -> Iterator[Holder]:
        for path, alive in self._notes():
            try:
                content = path.read_text(encoding="utf-8") if alive else ""
            except FileNotFoundError:
                continue
            if alive:
                yield Holder(**json.loads(content))

    def _file(self, name: str) -> Path:
        make_folder(self.root / LOCKS)
        return self.root / LOCKS / name


def utc_text(time: datetime) -> str:
    """A time in UTC as ISO 8601, to the second."""
    return time.isoformat(timespec="seconds").replace("+00:00", "Z")
