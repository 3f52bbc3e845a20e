"""Ends a process whose engine hangs, so that it is restarted.

A hang inside CUDA, or a stopped process, runs no Python any more, so that no thread inside can notice. The watcher
is a separate small process: it receives the heartbeat of the engine's process and the begin and end of calls, and kills
the process with SIGKILL when either takes too long. This file is also that process's program, and imports nothing
but the standard library.
"""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from functools import cache
from pathlib import Path

BREATH, START, BEGIN, END = b".", b"<", b"(", b")"
BREATH_SECONDS = 1.0
START_FACTOR = 4  # how much longer than a batch the start of an engine may take


class Watchdog:
    """Context around every call to an engine: a call that takes longer than `seconds` ends this process.

    The first call is the engine's start, and may take START_FACTOR times as long. None watches nothing. Callable
    from any thread, one call at a time.
    """

    def __init__(self, seconds: float | None) -> None:
        self._pipe: int | None = None
        self._started = False
        if seconds is None:
            return
        read, self._pipe = os.pipe()
        command = [sys.executable, "-I", "-S", __file__, str(os.getpid()), str(seconds)]
        try:
            # In a new session, which outlives the engine's process group; the pipe shows its end.
            self._watcher = subprocess.Popen(
                command, stdin=read, stdout=subprocess.DEVNULL, start_new_session=True
            )
        finally:
            os.close(read)
        threading.Thread(target=self._breathe, name="breath", daemon=True).start()

    def __enter__(self) -> None:
        self._send(BEGIN if self._started else START)
        self._started = True

    def __exit__(self, *_: object) -> None:
        self._send(END)

    def _breathe(self) -> None:
        while self._send(BREATH):
            time.sleep(BREATH_SECONDS)

    def _send(self, what: bytes) -> bool:
        """False where the watcher is gone; the engine then goes on unwatched."""
        if self._pipe is None:
            return False
        try:
            os.write(self._pipe, what)
        except OSError:
            return False
        return True


@cache
def process_watchdog(seconds: float | None) -> Watchdog:
    """The watchdog of this process. It notices a stopped process from the first call of this function on."""
    return Watchdog(seconds)


class Listener:
    """What the watcher has received, by its clock: a pure state of the calls and the last heartbeat."""

    def __init__(self, seconds: float, now: float) -> None:
        self.seconds = self.allowed = seconds
        self.last = now
        self.begun: float | None = None

    def hear(self, received: bytes, now: float) -> None:
        """Take in what came through the pipe."""
        self.last = now
        for what in (received[i : i + 1] for i in range(len(received))):
            if what in (START, BEGIN):
                self.begun, self.allowed = now, self.seconds * (START_FACTOR if what == START else 1)
            elif what == END:
                self.begun, self.allowed = None, self.seconds

    def overdue(self, now: float) -> bool:
        """Whether the call that runs, or the silence, has lasted longer than allowed."""
        since = self.last if self.begun is None else min(self.last, self.begun)
        return now - since > self.allowed


def watch(process: int, seconds: float, pipe: int, kill: Callable[[int, int], None] = os.kill) -> None:
    """Until the process ends, or is killed because it is overdue."""
    listener = Listener(seconds, time.monotonic())
    while os.getppid() == process:
        ready, _, _ = select.select([pipe], [], [], min(1.0, seconds / 4))
        if ready:
            received = os.read(pipe, 4096)
            if not received:
                return
            listener.hear(received, time.monotonic())
        if listener.overdue(time.monotonic()):
            print(f"an engine's call took longer than {seconds:g} s; its process is ended", file=sys.stderr)
            # vLLM's workers of a divided model are separate processes, and may hang where they miss its end.
            for each in (*descendants(process), process):
                with suppress(ProcessLookupError):
                    kill(each, signal.SIGKILL)
            return


def descendants(process: int) -> list[int]:
    """Children of a process and theirs, the newest generation last, less this one; none where there is no /proc."""
    children: dict[int, list[int]] = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            number, _, rest = stat.read_text(errors="replace").partition(" (")
            children.setdefault(int(rest.rpartition(")")[2].split()[1]), []).append(int(number))
    found: list[int] = []
    generation = [process]
    while generation:
        generation = [child for parent in generation for child in children.get(parent, [])]
        found += generation
    return [child for child in found if child != os.getpid()]


if __name__ == "__main__":
    watch(int(sys.argv[1]), float(sys.argv[2]), 0)
