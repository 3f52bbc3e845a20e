"""What a person sees while a sweep runs: a live table on a terminal, a line now and then in a log."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from sftlab.execution.progress import SECONDS_BETWEEN_LINES, TerminalProgress

if TYPE_CHECKING:
    from rich.table import Table

    from sftlab.execution.progress import Progress
    from sftlab.sweeps.live import LiveTracking
    from sftlab.sweeps.usage import Usage

REFRESH_SECONDS = 1.0
ENOUGH_TRIALS = 10


@dataclass
class SweepState:
    """How far a sweep is; `found` trials were finished before it began."""

    total: int
    found: int
    metric: str
    done: int = 0
    failed: int = 0
    lost: int = 0  # with their process or node, and tried again
    running: int = 0
    best: tuple[str, float, float] | None = None  # trial, percent, score
    live: LiveTracking[Any] | None = None  # gets every finished trial
    started: float = field(default_factory=time.monotonic)

    def begin(self) -> None:
        """The trials begin now: what came before, such as starting Ray, says nothing about their pace."""
        self.started = time.monotonic()

    def __getstate__(self) -> dict[str, Any]:
        # Ray Tune keeps a copy of the callbacks that hold this; threads are no part of it.
        return {**self.__dict__, "live": None}

    def observe(self, name: str, percent: float, score: float) -> None:
        """Remember the best score so far."""
        if self.best is None or score > self.best[2]:
            self.best = (name, percent, score)

    @property
    def seconds_left(self) -> float | None:
        """By the pace so far; None before enough trials have finished to judge it.

        The first ones wait for engines and worker groups to start, and those that run at once end together.
        """
        left = max(0, self.total - self.found - self.done - self.failed)
        enough = max(ENOUGH_TRIALS, self.running + 1)
        if left and self.done < min(enough, (self.total - self.found + 1) // 2):
            return None
        return (time.monotonic() - self.started) / max(1, self.done) * left

    @property
    def _left(self) -> str:
        seconds = self.seconds_left
        return "time left: estimating" if seconds is None else f"about {_clock(seconds)} left"

    @property
    def _troubles(self) -> list[str]:
        failed = [f"{self.failed} failed"] if self.failed else []
        return failed + (
            [f"{self.lost} lost with their process or node and tried again"] if self.lost else []
        )

    def line(self, usage: dict[str, Usage]) -> str:
        """All of it in one line."""
        parts = [f"{self.found + self.done} of {self.total} trials"]
        parts += [f"{self.running} running", *self._troubles]
        if self.best is not None:
            name, percent, score = self.best
            parts.append(f"best {self.metric} {score:.1%} ({name}, {percent:g} %)")
        parts += [f"{name} {_busy(use)}" for name, use in usage.items()]
        if self.live is not None:
            parts.append(f"{self.live.logged} logged")
        return ", ".join([*parts, self._left])

    def table(self, usage: dict[str, Usage]) -> Table:
        """The same as a table."""
        from rich.table import Table

        shown = Table(box=None, show_header=False, pad_edge=False)
        shown.add_column(style="dim", no_wrap=True)
        shown.add_column(overflow="fold")
        counts = f"{self.found + self.done} of {self.total} done ({self.found} found), {self.running} running"
        shown.add_row("trials", ", ".join([counts, *self._troubles]))
        if self.best is not None:
            name, percent, score = self.best
            shown.add_row(f"best {self.metric}", f"{score:.1%}  {name}, {percent:g} %")
        for name, use in usage.items():
            shown.add_row(name, f"{_busy(use)}, {use.done} done, {use.waiting} waiting, {use.starts} started")
        if self.live is not None:
            shown.add_row("MLflow", f"{self.live.logged} logged")
        shown.add_row("time", f"{_clock(time.monotonic() - self.started)}, {self._left}")
        return shown


@contextmanager
def watching(state: SweepState, progress: Progress, usage: Callable[[], dict[str, Usage]]) -> Iterator[None]:
    """Show the state until the context ends. `usage` is called from another thread."""
    over = threading.Event()
    if isinstance(progress, TerminalProgress):
        from rich.live import Live

        with Live(state.table({}), console=progress.console, refresh_per_second=2) as live:

            def refresh() -> None:
                while not over.wait(REFRESH_SECONDS):
                    live.update(state.table(usage()))

            with _thread(refresh, over):
                yield
            live.update(state.table(usage()))
        return

    def say() -> None:
        while not over.wait(SECONDS_BETWEEN_LINES):
            progress.say(state.line(usage()))

    with _thread(say, over):
        yield
    progress.say(state.line(usage()))


@contextmanager
def _thread(target: Callable[[], None], over: threading.Event) -> Iterator[None]:
    thread = threading.Thread(target=target, name="sweep-watch", daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join(2 * REFRESH_SECONDS)


def _busy(use: Usage) -> str:
    """Share of the time since the start that the engines or groups have worked."""
    share = use.busy_seconds / max(1e-9, use.size * use.elapsed)
    return f"{use.busy} of {use.size} busy ({min(share, 1):.0%} of the time)"


def _clock(seconds: float) -> str:
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
