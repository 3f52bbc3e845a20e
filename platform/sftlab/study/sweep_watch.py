"""What a person sees while a sweep runs: a live table on a terminal, a line now and then in a log."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from sftlab.study.progress import SECONDS_BETWEEN_LINES, TerminalProgress
from sftlab.study.sweep_spec import MODES

if TYPE_CHECKING:
    from rich.table import Table

    from sftlab.study.progress import Progress
    from sftlab.study.sweep_pools import Usage

REFRESH_SECONDS = 1.0


@dataclass
class SweepState:
    """How far a sweep is; `found` trials were finished before it began."""

    total: int
    found: int
    metric: str
    done: int = 0
    failed: int = 0
    running: int = 0
    best: tuple[str, float, float] | None = None  # trial, percent, score
    started: float = field(default_factory=time.monotonic)

    def tell(self, name: str, percent: float, score: float) -> None:
        """Remember the best score so far."""
        sign = 1 if MODES[self.metric] == "max" else -1
        if self.best is None or sign * score > sign * self.best[2]:
            self.best = (name, percent, score)

    @property
    def seconds_left(self) -> float | None:
        """By the pace so far; None before the first trial has finished."""
        if not self.done:
            return None
        elapsed = time.monotonic() - self.started
        return elapsed / self.done * max(0, self.total - self.found - self.done - self.failed)

    def line(self, usage: dict[str, Usage]) -> str:
        """All of it in one line."""
        parts = [f"{self.found + self.done} of {self.total} trials"]
        parts += [f"{self.running} running"] + ([f"{self.failed} failed"] if self.failed else [])
        if self.best is not None:
            name, percent, score = self.best
            parts.append(f"best {self.metric} {_score(self.metric, score)} ({name}, {percent:g} %)")
        parts += [f"{name} {_busy(use)}" for name, use in usage.items()]
        if self.seconds_left is not None:
            parts.append(f"about {_clock(self.seconds_left)} left")
        return ", ".join(parts)

    def table(self, usage: dict[str, Usage]) -> Table:
        """The same as a table."""
        from rich.table import Table

        shown = Table(box=None, show_header=False, pad_edge=False)
        shown.add_column(style="dim", no_wrap=True)
        shown.add_column(overflow="fold")
        failed = f", {self.failed} failed" if self.failed else ""
        shown.add_row(
            "trials",
            f"{self.found + self.done} of {self.total} done ({self.found} found), {self.running} running{failed}",
        )
        if self.best is not None:
            name, percent, score = self.best
            shown.add_row(f"best {self.metric}", f"{_score(self.metric, score)}  {name}, {percent:g} %")
        for name, use in usage.items():
            shown.add_row(name, f"{_busy(use)}, {use.done} done, {use.waiting} waiting, {use.starts} started")
        left = "-" if self.seconds_left is None else f"about {_clock(self.seconds_left)}"
        shown.add_row("time", f"{_clock(time.monotonic() - self.started)}, {left} left")
        return shown


@contextmanager
def watching(state: SweepState, progress: Progress, usage: Callable[[], dict[str, Usage]]) -> Iterator[None]:
    """Show the state until the context ends. `usage` is asked from a thread of its own."""
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


def _score(metric: str, score: float) -> str:
    return f"{score:.3f} nats" if metric == "kl" else f"{score:.1%}"


def _busy(use: Usage) -> str:
    """Share of the time since the start that the engines or groups have worked."""
    share = use.busy_seconds / max(1e-9, use.size * use.elapsed)
    return f"{use.busy} of {use.size} busy ({min(share, 1):.0%} of the time)"


def _clock(seconds: float) -> str:
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
