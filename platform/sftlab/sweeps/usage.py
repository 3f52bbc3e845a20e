"""How long the workers of a pool are busy."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass, replace


@dataclass
class Usage:
    """What a pool has done so far; seconds add up over its engines or groups."""

    size: int
    elapsed: float = 0.0  # since the pool was made
    starts: int = 0
    start_seconds: float = 0.0  # from asking for an engine or group until it works
    busy: int = 0
    busy_seconds: float = 0.0
    waiting: int = 0
    done: int = 0


class Meter:
    """Counts what a pool does; callable from all of its threads."""

    def __init__(self, size: int) -> None:
        self._usage, self._lock = Usage(size), threading.Lock()
        self._made = self._last = time.monotonic()

    def add(
        self, *, waiting: int = 0, busy: int = 0, starts: int = 0, done: int = 0, start_seconds: float = 0.0
    ) -> None:
        """Add to the counts."""
        with self._lock:
            self._tick()
            usage = self._usage
            usage.waiting, usage.busy = usage.waiting + waiting, usage.busy + busy
            usage.starts, usage.done = usage.starts + starts, usage.done + done
            usage.start_seconds += start_seconds

    def read(self) -> Usage:
        """A copy of the counts at this moment."""
        with self._lock:
            self._tick()
            return replace(self._usage)

    def _tick(self) -> None:
        now = time.monotonic()
        self._usage.busy_seconds += self._usage.busy * (now - self._last)
        self._usage.elapsed, self._last = now - self._made, now
