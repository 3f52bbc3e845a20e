"""What a sweep says of its progress."""

from __future__ import annotations

import re
import time

import pytest

from sftlab.sweeps.outcome import best_percent
from sftlab.sweeps.progress import SweepState


def test_the_best_percentage_is_the_smallest_with_the_best_score() -> None:
    assert best_percent({0.0: 0.1, 10.0: 0.3, 20.0: 0.4, 40.0: 0.4, 60.0: float("nan")}) == 20.0


def test_the_watcher_s_line_says_how_far_the_best_and_the_time_left() -> None:
    state = SweepState(total=10, found=2, metric="dev")
    state.observe("a", 10.0, 0.5)
    state.observe("b", 0.0, 0.4)
    state.done, state.running = 4, 1
    line = state.line({})
    assert "6 of 10 trials, 1 running" in line and "best dev 50.0% (a, 10 %)" in line


@pytest.mark.parametrize(
    ("total", "done", "running", "told"),
    [
        (480, 0, 8, False),
        (480, 9, 8, False),
        (480, 10, 8, True),
        (480, 64, 64, False),  # the first that ran at once all waited for the engines to start
        (480, 65, 64, True),
        (6, 2, 4, False),
        (6, 3, 3, True),
        (6, 6, 0, True),
        (1, 0, 1, False),
    ],
)
def test_time_left_is_told_once_enough_trials_have_finished(
    total: int, done: int, running: int, told: bool
) -> None:
    state = SweepState(
        total=total + 5, found=5, metric="dev", done=done, running=running, started=time.monotonic() - 60
    )
    line = state.line({})
    assert ("time left: estimating" not in line) == told == bool(re.search(r"about \d+:\d\d", line))
    if (total, done) == (480, 10):  # 6 seconds each, 470 to go
        assert "about 47:0" in line
