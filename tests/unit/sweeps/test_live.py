"""Trials are handed to the tracker while a sweep runs: in batches, again after a server was away, never in the way."""

from __future__ import annotations

import pickle
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any, cast

import pytest

from sftlab.errors import UserError
from sftlab.studies.knowledge.sweep.trials import Trial
from sftlab.sweeps.live import TRIALS_A_BATCH, LiveTracking
from sftlab.sweeps.progress import SweepState


class Server:
    """Takes batches of trials, refuses them while it is away."""

    def __init__(self) -> None:
        self.batches: list[list[Any]] = []
        self.away: BaseException | None = None
        self.calls = 0

    def write(self, trials: Sequence[Trial]) -> None:
        self.calls += 1
        if self.away is not None:
            raise self.away
        self.batches.append(list(trials))

    @property
    def got(self) -> list[Any]:
        return [trial for batch in self.batches for trial in batch]


def until(reached: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30
    while not reached():
        assert time.monotonic() < deadline
        time.sleep(0.002)


def started(server: Server, said: list[str]) -> LiveTracking:
    live = LiveTracking(server.write, said.append, 0.01, 0.01)
    live.start()
    return live


def tell(live: LiveTracking, *names: object) -> None:
    for name in names:
        live.add(cast(Trial, name))


def test_trials_are_logged_in_their_order_and_in_batches_of_a_bounded_size() -> None:
    server, said = Server(), list[str]()
    live = LiveTracking(server.write, said.append, 0.01, 0.01)
    tell(live, *range(2 * TRIALS_A_BATCH + 1))
    live.start()
    until(lambda: live.logged == 2 * TRIALS_A_BATCH + 1)
    live.stop()
    assert server.got == list(range(2 * TRIALS_A_BATCH + 1)) and said == []
    assert [len(batch) for batch in server.batches] == [TRIALS_A_BATCH, TRIALS_A_BATCH, 1]


def test_a_server_that_is_away_is_said_once_and_gets_every_trial_once_when_it_is_back() -> None:
    server, said = Server(), list[str]()
    server.away = UserError("MLflow at http://h: refused\nmore")
    live = started(server, said)
    tell(live, "a")
    until(lambda: server.calls > 3)
    tell(live, "b")
    assert said == [
        "MLflow at http://h: refused The sweep goes on; its trials are logged when MLflow answers again."
    ]
    assert live.logged == 0
    server.away = None
    until(lambda: live.logged == 2)
    live.stop()
    assert server.got == ["a", "b"] and len(said) == 2 and "MLflow is back" in said[1]


def test_another_error_ends_the_live_logging_with_a_word_and_not_the_sweep() -> None:
    server, said = Server(), list[str]()
    server.away = ZeroDivisionError("of ours")
    live = started(server, said)
    tell(live, "a")
    until(lambda: bool(said))
    tell(live, "b")  # nobody listens, and nobody waits
    live.stop()
    assert said == ["trials are logged only at the end of the sweep (ZeroDivisionError: of ours)"]


def test_the_end_of_a_sweep_waits_for_the_batch_under_way_and_begins_no_other() -> None:
    begun, go_on, done = threading.Event(), threading.Event(), list[Any]()

    def slow(trials: Sequence[Trial]) -> None:
        begun.set()
        assert go_on.wait(30)
        done.extend(trials)

    live = LiveTracking(slow, pytest.fail, 0.01, 0.01)
    tell(live, *range(3 * TRIALS_A_BATCH))
    live.start()
    assert begun.wait(30)
    threading.Timer(0.05, go_on.set).start()
    live.stop()
    assert done == list(range(TRIALS_A_BATCH)) == list(range(live.logged))


def test_the_state_that_tune_copies_leaves_the_thread_behind_and_the_table_shows_the_count() -> None:
    live = LiveTracking(Server().write, pytest.fail)
    live.logged = 7
    state = SweepState(total=9, found=0, metric="dev", live=live)
    assert "7 logged" in state.line({})
    assert pickle.loads(pickle.dumps(state)).live is None and state.live is live
