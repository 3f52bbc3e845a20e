"""The locks of a store, of single results and of the whole, and who holds the latter."""

from __future__ import annotations

import fcntl
import json
import os
import socket
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import uuid4

from sftlab.errors import UserError
from sftlab.files import make_folder, readable_write_errors
from sftlab.store import local, remote
from sftlab.store.mirror import Mirror

WHOLE = "store"  # name of the lock on everything
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


@dataclass(frozen=True)
class Locks:
    """The locks of a store: in a folder by `flock`, in an object store by leases. Raises UserError without locks."""

    root: Path
    mirror: Mirror | None

    @contextmanager
    def hold(self, names: Sequence[str]) -> Iterator[None]:
        """Hold the named locks; waits for whoever holds one."""
        with ExitStack() as held:
            for name in sorted(set(names)):
                if self.mirror is not None:
                    held.enter_context(remote.leases_of(self.mirror.address).hold(name))
                else:
                    local.flock(held.enter_context(self._file(name).open("w")), fcntl.LOCK_EX)
            yield

    @contextmanager
    def try_hold(self, name: str) -> Iterator[bool]:
        """Hold a lock, or report at once (False) that another holds it."""
        if self.mirror is not None:
            with remote.leases_of(self.mirror.address).try_hold(name) as got:
                yield got
            return
        with self._file(name).open("w") as held:
            try:
                local.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                yield False
                return
            yield True

    @contextmanager
    def hold_whole(self, shared: bool, waiting: Callable[[], None] | None, busy: UserError) -> Iterator[None]:
        """Hold the lock on everything. Where another has it: calls `waiting` and waits, or raises `busy` if None."""
        make_folder(self.root)
        if self.mirror is not None:
            leases = remote.leases_of(self.mirror.address)
            with leases.hold(WHOLE, shared, waiting, patient=waiting is not None) as got:
                if not got:
                    raise busy
                yield
            return
        kind = fcntl.LOCK_SH if shared else fcntl.LOCK_EX
        with (self.root / ".lock").open("w") as lock:
            try:
                local.flock(lock, kind | fcntl.LOCK_NB)
            except BlockingIOError:
                if waiting is None:
                    raise busy from None
                waiting()
                local.flock(lock, kind)
            with self._noted(shared):
                yield

    def holders(self) -> list[Holder]:
        """Who builds in the store now, by the time at which they began. Writes nothing and takes no lock.

        Of an object store only those are reported whose claims are seen to be refreshed, which takes some seconds.
        """
        found = self._noted_holders() if self.mirror is None else self._claimed(self.mirror)
        return sorted(found, key=lambda holder: holder.since)

    @contextmanager
    def _noted(self, shared: bool) -> Iterator[None]:
        """Keep a note of this process, locked for as long as the process lives; notes of dead ones are deleted."""
        for path, alive in self._notes():
            if not alive:
                path.unlink(missing_ok=True)
        note = self._file(f"{NOTE}{uuid4().hex}.json")
        holder = Holder(socket.gethostname(), os.getpid(), _text(datetime.now(UTC)), shared)
        # Under another name until it is locked, so that nobody takes it for the note of a dead process.
        hidden = note.with_name(f".{note.name}")
        with ExitStack() as opened:
            with readable_write_errors(note):
                file = opened.enter_context(hidden.open("w", encoding="utf-8"))
                local.flock(file, fcntl.LOCK_EX)
                json.dump(asdict(holder), file)
                file.flush()
                hidden.replace(note)
            try:
                yield
            finally:
                note.unlink(missing_ok=True)

    def _notes(self) -> Iterator[tuple[Path, bool]]:
        """The notes of builders, each with whether its process is alive."""
        for path in (self.root / remote.LOCKS).glob(f"{NOTE}*"):
            try:
                with path.open() as file:
                    try:
                        local.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
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

    def _claimed(self, mirror: Mirror) -> Iterator[Holder]:
        leases = remote.leases_of(mirror.address)
        for name in leases.refreshed(WHOLE):
            content: dict[str, Any] = leases.claims.read(name)
            began, _, rest = name.rpartition("/")[2].partition("-")
            since = _text(datetime.fromtimestamp(int(began) / 1e9, UTC))
            host, process = str(content.get("host", "unknown")), int(content.get("process", 0))
            yield Holder(host, process, since, rest.endswith("-shared"))

    def _file(self, name: str) -> Path:
        make_folder(self.root / remote.LOCKS)
        return self.root / remote.LOCKS / name


def _text(time: datetime) -> str:
    return time.isoformat(timespec="seconds").replace("+00:00", "Z")
