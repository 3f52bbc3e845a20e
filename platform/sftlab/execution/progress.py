"""What a person sees while a study runs: a bar a stage on a terminal, a line now and then in a log."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Protocol

SECONDS_BETWEEN_LINES = 10.0


class Bar(Protocol):
    """Progress of one stage, in units of its own (facts, steps, models, bytes)."""

    def update(self, done: float, total: float, note: str = "") -> None: ...


class Progress(Protocol):
    """Where stages report to."""

    def say(self, text: str) -> None: ...

    def bar(self, title: str) -> AbstractContextManager[Bar]: ...


class TerminalProgress:
    """Live bars by rich."""

    def __init__(self) -> None:
        from rich.console import Console

        self.console = Console(stderr=True)

    def say(self, text: str) -> None:
        self.console.print(text, highlight=False, markup=False)

    @contextmanager
    def bar(self, title: str) -> Iterator[Bar]:
        from rich.progress import BarColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
        from rich.progress import Progress as Live

        columns = [
            TextColumn("{task.description:<24}"),
            BarColumn(bar_width=30),
            TextColumn("{task.percentage:>3.0f}%"),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[note]}"),
        ]
        with Live(*columns, console=self.console, redirect_stdout=False, redirect_stderr=False) as live:
            task = live.add_task(title, total=None, note="")

            class _Bar:
                def update(self, done: float, total: float, note: str = "") -> None:
                    live.update(task, completed=done, total=total, note=note)

            yield _Bar()


class LogProgress:
    """Plain lines, at most one in ten seconds a stage, for `ray job logs` and files."""

    def say(self, text: str) -> None:
        print(text, flush=True)

    @contextmanager
    def bar(self, title: str) -> Iterator[Bar]:
        started = time.monotonic()
        say = self.say
        say(f"{title}: started")

        class _Bar:
            last = started

            def update(self, done: float, total: float, note: str = "") -> None:
                now = time.monotonic()
                if now - self.last < SECONDS_BETWEEN_LINES:
                    return
                self.last = now
                say(f"{title}: {done:,.0f} of {total:,.0f} after {now - started:,.0f} s {note}".rstrip())

        yield _Bar()
        say(f"{title}: done in {time.monotonic() - started:,.1f} s")


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


def choose_progress(interactive: bool) -> TerminalProgress | LogProgress:
    return TerminalProgress() if interactive else LogProgress()
