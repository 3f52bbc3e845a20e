"""Progress on terminals of any width, and in logs, where a stage is never silent for more than ten seconds."""

from __future__ import annotations

import io
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
from rich.console import Console

from sftlab.execution.progress import LogProgress, TerminalProgress, choose_progress, repeating


class Clock:
    """A clock that a test moves; `report` is what the progress repeats, while a bar is shown."""

    def __init__(self) -> None:
        self.seconds = 100.0
        self.every = 0.0
        self.report: Callable[[], None] | None = None

    @contextmanager
    def repeat(self, seconds: float, call: Callable[[], None]) -> Iterator[None]:
        self.every, self.report = seconds, call
        try:
            yield
        finally:
            self.report = None

    def passes(self, seconds: float) -> None:
        """Time passes, and the report is made as often as it is due."""
        for _ in range(int(seconds // self.every)):
            self.seconds += self.every
            assert self.report is not None
            self.report()


def test_a_log_repeats_the_newest_state_while_nothing_changes(capsys: pytest.CaptureFixture[str]) -> None:
    clock = Clock()
    with LogProgress(lambda: clock.seconds, clock.repeat).bar("mastery") as bar:
        clock.passes(16)
        bar.update(1000, 4000, "2 engines")
        bar.update(2000, 4000, "2 engines")
        clock.passes(16)
        bar.update(4000, 4000)
    assert clock.report is None
    assert capsys.readouterr().out.splitlines() == [
        "mastery: started",
        "mastery: no result yet, after 8 s",
        "mastery: no result yet, after 16 s",
        "mastery: 2,000 of 4,000 2 engines, after 24 s",
        "mastery: 2,000 of 4,000 2 engines, after 32 s",
        "mastery: done in 32.0 s",
    ]


def test_lines_of_a_log_are_less_than_ten_seconds_apart(capsys: pytest.CaptureFixture[str]) -> None:
    clock = Clock()
    with LogProgress(lambda: clock.seconds, clock.repeat).bar("tuned"):
        assert 0 < clock.every < 10
    assert len(capsys.readouterr().out.splitlines()) == 2


def test_a_stage_that_fails_is_not_reported_as_done(capsys: pytest.CaptureFixture[str]) -> None:
    clock = Clock()
    with pytest.raises(ValueError, match="broken"), LogProgress(repeat=clock.repeat).bar("change"):
        raise ValueError("broken")
    assert capsys.readouterr().out.splitlines() == ["change: started"] and clock.report is None


def test_a_thread_repeats_until_the_context_ends() -> None:
    three, calls = threading.Event(), list[int]()

    def call() -> None:
        calls.append(1)
        if len(calls) == 3:
            three.set()

    before = threading.active_count()
    with repeating(0.001, call):
        assert three.wait(30)
    assert threading.active_count() == before


@pytest.mark.parametrize("width", [20, 40, 89, 90, 200])
def test_a_bar_takes_one_line_of_any_terminal(width: int) -> None:
    shown = io.StringIO()
    console = Console(file=shown, width=width, force_terminal=True, color_system=None, legacy_windows=False)
    with TerminalProgress(console).bar("evaluation") as bar:
        bar.update(30, 120, "30 of 120 models, 2 engines")
    (line,) = [line for line in shown.getvalue().splitlines() if "25%" in line]
    # The second frame begins after the codes that delete the first.
    assert "evaluation" in line.rpartition("\x1b[2K")[2] and len(line.rpartition("\x1b[2K")[2]) <= width
    assert ("━" in line) == (width >= 90)


def test_no_colour_where_no_color_is_set(monkeypatch: pytest.MonkeyPatch) -> None:
    for value, coloured in (("1", False), (None, True)):
        if value is None:
            monkeypatch.delenv("NO_COLOR", raising=False)
        else:
            monkeypatch.setenv("NO_COLOR", value)
        shown = io.StringIO()
        console = Console(file=shown, width=100, force_terminal=True, color_system="standard")
        with TerminalProgress(console).bar("tuned") as bar:
            bar.update(1, 2)
        assert ("\x1b[3" in shown.getvalue()) == coloured


def test_long_lines_are_left_to_the_terminal_to_wrap() -> None:
    shown = io.StringIO()
    TerminalProgress(Console(file=shown, width=20)).say("report: /a/folder/of/a/long/name/report.html")
    assert shown.getvalue() == "report: /a/folder/of/a/long/name/report.html\n"


@pytest.mark.parametrize(
    ("interactive", "terminal", "kind"),
    [
        (True, "xterm-256color", TerminalProgress),
        (True, "", TerminalProgress),
        (True, "dumb", LogProgress),
        (False, "xterm", LogProgress),
    ],
)
def test_bars_only_where_a_terminal_can_draw_them(interactive: bool, terminal: str, kind: type) -> None:
    assert isinstance(choose_progress(interactive, terminal), kind)
