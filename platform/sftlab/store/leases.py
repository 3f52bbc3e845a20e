"""Locks in an object store, which knows no locks: claims that are written, listed and deleted.

All that is asked of the object store is that a listing shows every claim whose writing had ended before the
listing began, and none whose deletion had. A builder writes a claim of its own and *then* lists. It holds the lock if
no other live claim is in its way. Of two, the one that lists last sees the other's claim; so there are never two.
Otherwise the builder with the smallest name keeps its claim and looks again, and all others take theirs back until
no smaller one is left; so one of them gets in.

Names begin with the time at which their builder came, by its own clock. Clocks that differ change the order, and
nothing else. A claim is rewritten every few seconds. One that does not change for `DEAD_SECONDS` of the *observer's*
monotonic clock belongs to a dead process, and is deleted. A holder that was only paused for so long may then build
at the same time as its successor. That only wastes time: what is committed first is kept.
"""

from __future__ import annotations

import logging
import random
import threading
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol
from uuid import uuid4

REFRESH_SECONDS = 5.0
DEAD_SECONDS = 30.0
POLL_SECONDS = 0.5
TRIES = 5  # of `try_hold`, while another takes its claim back

log = logging.getLogger(__name__)
Move = Literal["claim", "enter", "withdraw", "wait"]


def claim_name(shared: bool, now_ns: int, unique: str) -> str:
    """Name of a claim; names sort by the time at which their builders came."""
    return f"{now_ns:020d}-{unique}-{'shared' if shared else 'alone'}"


def conflict(one: str, other: str) -> bool:
    """Whether two claims exclude each other: all do, but two shared ones."""
    return one != other and not (one.endswith("-shared") and other.endswith("-shared"))


def next_move(me: str, claimed: bool, live: Collection[str]) -> Move:
    """What a builder does that saw these live claims in a listing begun after its own last write.

    `claimed`: whether it has written its claim and not taken it back.
    """
    rivals = [claim for claim in live if conflict(claim, me)]
    senior = any(claim < me for claim in rivals)
    if not claimed:
        return "wait" if senior else "claim"
    if me not in live:  # others took this process for dead
        return "claim"
    if not rivals:
        return "enter"
    return "withdraw" if senior else "wait"


@dataclass
class _Sight:
    """What an observer knows of one claim: its state, since when (own clock), and whether it ever changed."""

    state: object
    since: float
    changed: bool = False


class Observer:
    """Distinguishes live claims from dead ones by one clock."""

    def __init__(self, dead_after: float = DEAD_SECONDS) -> None:
        self.dead_after = dead_after
        self._seen: dict[str, _Sight] = {}

    def look(self, now: float, states: Mapping[str, object], below: str = "") -> set[str]:
        """The live ones of these claims. `now`: read before the listing began, which may have taken long.

        Forgets the claims whose names begin with `below` and that are no longer there.
        """
        for name in [name for name in self._seen if name.startswith(below) and name not in states]:
            del self._seen[name]
        for name, state in states.items():
            sight = self._seen.get(name)
            if sight is None:
                self._seen[name] = _Sight(state, now)
            elif sight.state != state:
                self._seen[name] = _Sight(state, now, changed=True)
        return {name for name in states if now - self._seen[name].since < self.dead_after}

    def surely_alive(self, name: str) -> bool:
        """Whether the claim was seen to change, so that it is no remnant of a killed process."""
        return name in self._seen and self._seen[name].changed


class Claims(Protocol):
    """Where claims are written: an object store, or a model of one in a test."""

    def states(self, lock: str) -> dict[str, object]:
        """The claims of a lock by full name, each with what changes when it is rewritten."""

    def write(self, name: str) -> None: ...

    def read(self, name: str) -> dict[str, Any]:
        """What the builder of a claim wrote into it: its host and process. Empty where the claim is gone."""

    def delete(self, name: str) -> None: ...


@dataclass
class Leases:
    """The locks of this process in one object store; callable from all of its threads."""

    claims: Claims
    refresh_seconds: float = REFRESH_SECONDS
    dead_seconds: float = DEAD_SECONDS
    poll_seconds: float = POLL_SECONDS
    _own: set[str] = field(default_factory=set)
    _guard: threading.Lock = field(default_factory=threading.Lock)
    _writing: threading.Lock = field(default_factory=threading.Lock)
    refresher: threading.Thread | None = None

    def __post_init__(self) -> None:
        self.observer = Observer(self.dead_seconds)

    @contextmanager
    def hold(
        self, lock: str, shared: bool = False, waiting: Callable[[], None] | None = None, patient: bool = True
    ) -> Iterator[bool]:
        """Wait for the lock, hold it, and free it; `waiting` is called once if another has it.

        Not `patient`: yields False, without the lock, as soon as another is known to be alive.
        """
        me = f"{lock}/{claim_name(shared, time.time_ns(), uuid4().hex[:8])}"
        claimed = notified = False
        try:
            while True:
                live = self._live(lock)
                move = next_move(me, claimed, live)
                if move == "enter":
                    break
                if move == "claim":
                    self._write(me)
                    claimed = True
                    continue
                if move == "withdraw":
                    self._delete(me)
                    claimed = False
                if not notified and waiting is not None:
                    waiting()
                    notified = True
                if not patient and any(conflict(c, me) and self._alive(c) for c in live):
                    yield False
                    return
                time.sleep(self.poll_seconds * random.uniform(0.5, 1.5))
            yield True
        finally:
            self._delete(me)

    @contextmanager
    def try_hold(self, lock: str) -> Iterator[bool]:
        """Hold the lock, or say soon (False) that another may have it."""
        me = f"{lock}/{claim_name(False, time.time_ns(), uuid4().hex[:8])}"
        claimed = held = False
        try:
            for _ in range(TRIES):
                move = next_move(me, claimed, self._live(lock))
                if move == "enter":
                    held = True
                    break
                if move == "claim":
                    self._write(me)
                    claimed = True
                    continue
                if move == "withdraw" or not claimed:
                    break
                time.sleep(self.poll_seconds * random.uniform(0.5, 1.5))
            if not held:
                self._delete(me)
            yield held
        finally:
            self._delete(me)

    def refreshed(self, lock: str) -> list[str]:
        """The claims on a lock that are of this process, or are seen to be refreshed; writes and deletes nothing.

        Looks until each claim has changed, for at most two times the seconds after which a live one does.
        """
        observer = Observer(self.dead_seconds)
        ends = time.monotonic() + 2 * self.refresh_seconds
        while True:
            now = time.monotonic()
            states = self.claims.states(lock)
            observer.look(now, states)
            with self._guard:
                alive = {name for name in states if name in self._own or observer.surely_alive(name)}
            if alive == states.keys() or now >= ends:
                return sorted(alive)
            time.sleep(self.poll_seconds)

    def _live(self, lock: str) -> set[str]:
        """Claims on the lock whose process lives; those of dead ones are deleted."""
        now = time.monotonic()
        states = self.claims.states(lock)
        with self._guard:
            live = self.observer.look(now, states, f"{lock}/") | (self._own & states.keys())
        for name in states.keys() - live:
            self.claims.delete(name)
        return live

    def _alive(self, name: str) -> bool:
        with self._guard:
            return name in self._own or self.observer.surely_alive(name)

    def _write(self, name: str) -> None:
        with self._guard:
            self._own.add(name)
            if self.refresher is None or not self.refresher.is_alive():
                self.refresher = threading.Thread(target=self._refresh, name="leases", daemon=True)
                self.refresher.start()
        self.claims.write(name)

    def _delete(self, name: str) -> None:
        with self._guard:
            mine = name in self._own
            self._own.discard(name)
        if mine:
            with self._writing:  # a claim that is being refreshed would come back
                self.claims.delete(name)

    def _refresh(self) -> None:
        """Rewrite this process's claims for as long as it has some."""
        warned = False
        while True:
            time.sleep(self.refresh_seconds)
            with self._guard:
                own = sorted(self._own)
                if not own:
                    self.refresher = None
                    return
            for name in own:
                try:
                    # A claim that another has deleted stays so: its lock may have a new holder.
                    there = name in self.claims.states(name.rpartition("/")[0])
                    with self._writing:
                        if there and name in self._own:
                            self.claims.write(name)
                except Exception as error:  # whatever it is, the other claims live by this thread
                    if not warned:
                        log.warning("A lock cannot be refreshed now, and is tried again: %s", error)
                    warned = True
