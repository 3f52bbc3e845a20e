"""What a person sees while a study runs: a bar a stage on a terminal, a line now and then in a log."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from rich.console import Console

SECONDS_BETWEEN_LINES = 8.0  # so that a log is silent for ten seconds at most
WIDE = 90  # columns of a terminal from which on a bar is drawn and the elapsed time is shown
Repeat = Callable[[float, Callable[[], None]], AbstractContextManager[None]]


class Bar(Protocol):
    """Progress of one stage, in units of its own (facts, steps, models, bytes)."""

    def update(self, done: float, total: float, note: str = "") -> None: ...


class Progress(Protocol):
    """Where stages report to."""

    def say(self, text: str) -> None: ...

    def bar(self, title: str) -> AbstractContextManager[Bar]: ...


class TerminalProgress:
    """Live bars by rich, which fit narrow terminals and have no colours where NO_COLOR is set."""

    def __init__(self, console: Console | None = None) -> None:
        if console is None:
            from rich.console import Console as Terminal

            console = Terminal(stderr=True)
        self.console = console

    def say(self, text: str) -> None:
        # The terminal wraps long lines, so that paths and commands are copied whole.
        self.console.print(text, highlight=False, markup=False, soft_wrap=True)

    @contextmanager
    def bar(self, title: str) -> Iterator[Bar]:
        from rich.progress import (
            BarColumn,
            ProgressColumn,
            TextColumn,
            TimeElapsedColumn,
            TimeRemainingColumn,
        )
        from rich.progress import Progress as Live
        from rich.table import Column

        columns: list[ProgressColumn] = [
            TextColumn("{task.description:<24}"),
            BarColumn(bar_width=30),
            TextColumn("{task.percentage:>3.0f}%"),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[note]}", table_column=Column(no_wrap=True, overflow="ellipsis")),
        ]
        if self.console.width < WIDE:
            short = "{task.percentage:.0f}% {task.description} {task.fields[note]}"
            columns = [TextColumn(short, table_column=Column(no_wrap=True, overflow="ellipsis"))]
        with Live(*columns, console=self.console, redirect_stdout=False, redirect_stderr=False) as live:
            task = live.add_task(title, total=None, note="")

            class _Bar:
                def update(self, done: float, total: float, note: str = "") -> None:
                    live.update(task, completed=done, total=total, note=note)

            yield _Bar()


@contextmanager
def repeating(seconds: float, call: Callable[[], None]) -> Iterator[None]:
    """Within the context a thread makes this call, each time after so many seconds."""
    ended = threading.Event()

    def repeat() -> None:
        while not ended.wait(seconds):
            call()

    thread = threading.Thread(target=repeat, name="progress", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


class LogProgress:
    """Plain lines for `ray job logs` and files: the newest state of a stage, also while nothing changes.

    now: a monotonic clock, in seconds. repeat: as `repeating`.
    """

    def __init__(self, now: Callable[[], float] = time.monotonic, repeat: Repeat = repeating) -> None:
        self._now, self._repeat = now, repeat

    def say(self, text: str) -> None:
        print(text, flush=True)

    @contextmanager
    def bar(self, title: str) -> Iterator[Bar]:
        started = self._now()

        class _Bar:
            state = "no result yet"

            def update(self, done: float, total: float, note: str = "") -> None:
                self.state = f"{done:,.0f} of {total:,.0f} {note}".rstrip()

        bar = _Bar()

        def report() -> None:
            self.say(f"{title}: {bar.state}, after {self._now() - started:,.0f} s")

        self.say(f"{title}: started")
        with self._repeat(SECONDS_BETWEEN_LINES, report):
            yield bar
        self.say(f"{title}: done in {self._now() - started:,.1f} s")


class SilentProgress:
    """Nothing: for what runs inside something that is watched as a whole."""

    def say(self, text: str) -> None:
        del text

    @contextmanager
    def bar(self, title: str) -> Iterator[Bar]:
        del title

        class _Bar:
            def update(self, done: float, total: float, note: str = "") -> None:
                del done, total, note

        yield _Bar()


def choose_progress(interactive: bool, terminal: str = "") -> TerminalProgress | LogProgress:
    """Bars on an interactive terminal, plain lines elsewhere and on a terminal (TERM) that cannot move its cursor."""
    return TerminalProgress() if interactive and terminal not in ("dumb", "unknown") else LogProgress()
