"""A bounded number of open files for any number of shards and restored models."""

from __future__ import annotations

import os
import resource
from collections import OrderedDict
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Lock

_MOST = 256  # of one set of files
_SHARE = 8  # of the process's limit, as several sets are in use at once; Python and torch need the rest


class OpenFiles:
    """Opens files when they are used and closes those that were not used for longest. Several threads may share it.

    flags: as `os.open` takes them. At most `most` files stay open, and those that threads use at the moment.
    """

    def __init__(self, flags: int = os.O_RDONLY, most: int | None = None) -> None:
        self._flags = flags
        self._most = share_of_limit() if most is None else most
        self._lock = Lock()
        self._open: OrderedDict[Path, int] = OrderedDict()
        self._users: dict[Path, int] = {}

    @contextmanager
    def use(self, path: Path) -> Iterator[int]:
        """The descriptor of a file, open until the context ends. Raises OSError where it cannot be opened."""
        with self._lock:
            file = self._open.get(path)
            if file is None:
                self._close_idle(self._most - 1)
                file = self._open[path] = os.open(path, self._flags)
            self._open.move_to_end(path)
            self._users[path] = self._users.get(path, 0) + 1
        try:
            yield file
        finally:
            with self._lock:
                self._users[path] -= 1
                if not self._users[path]:
                    del self._users[path]

    def close(self, paths: Iterable[Path] | None = None) -> None:
        """Closes these files, or all; they open again when they are used again."""
        with self._lock:
            for path in list(self._open) if paths is None else paths:
                if path in self._open:
                    os.close(self._open.pop(path))

    def _close_idle(self, keep: int) -> None:
        for path in list(self._open):
            if len(self._open) <= keep:
                return
            if path not in self._users:
                os.close(self._open.pop(path))


def share_of_limit() -> int:
    """How many files one set may keep open, by the process's soft limit (`ulimit -n`)."""
    limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return _MOST if limit == resource.RLIM_INFINITY else max(1, min(_MOST, limit // _SHARE))
