"""Locks in an object store: never two holders, everyone gets in, and the dead do not block the living."""

from __future__ import annotations

import threading
import time
from collections.abc import Generator
from dataclasses import dataclass, field

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sftlab.store.leases import Leases, Observer, claim_name, conflict, next_move


@dataclass
class World:
    """An object store with the claims of one lock, and who believes to hold it."""

    claims: set[str] = field(default_factory=set)
    holders: list[str] = field(default_factory=list)
    dead: set[str] = field(default_factory=set)
    most_shared: int = 0

    def enter(self, me: str) -> None:
        assert not [other for other in self.holders if conflict(me, other)], (me, self.holders)
        self.holders.append(me)
        self.most_shared = max(self.most_shared, len(self.holders))


def contender(world: World, me: str, held: int) -> Generator[None]:
    """What `Leases.hold` does; others may act at every yield, also between a listing and what follows from it."""
    claimed = False
    while True:
        live = world.claims - world.dead
        yield
        move = next_move(me, claimed, live)
        if move == "claim":
            world.claims.add(me)
            claimed = True
        elif move == "withdraw":
            world.claims.discard(me)
            claimed = False
        elif move == "enter":
            world.enter(me)
            for _ in range(held):
                yield
            world.holders.remove(me)
            yield
            world.claims.discard(me)
            return
        yield


PEOPLE = st.lists(st.tuples(st.booleans(), st.integers(0, 3), st.integers(0, 6)), min_size=2, max_size=6)


@settings(max_examples=400, deadline=None)
@given(PEOPLE, st.lists(st.integers(0, 5), max_size=120), st.sets(st.integers(0, 5), max_size=2))
def test_never_two_holders_and_everyone_gets_in(
    people: list[tuple[bool, int, int]], schedule: list[int], killed: set[int]
) -> None:
    """people: shared or not, when they came (equal times too), how long they hold. killed: who dies on the way."""
    world = World()
    names = [claim_name(shared, came, f"{n:08x}") for n, (shared, came, _) in enumerate(people)]
    running = {n: contender(world, names[n], people[n][2]) for n in range(len(people))}

    def step(n: int) -> None:
        try:
            next(running[n])
        except StopIteration:
            del running[n]

    for n in schedule:
        if n in running:
            step(n)
    for n in killed & running.keys():  # SIGKILL: the claim stays, and nothing is written any more
        del running[n]
        world.dead.add(names[n])
        world.holders = [name for name in world.holders if name != names[n]]
    for _ in range(400):
        for n in list(running):
            step(n)
        if not running:
            break
    assert not running, "somebody waits for ever"
    assert world.claims <= world.dead


def test_readers_share_and_a_writer_that_came_before_later_readers_is_not_passed_by() -> None:
    first, writer, later = claim_name(True, 1, "a"), claim_name(False, 2, "b"), claim_name(True, 3, "c")
    assert next_move(later, True, {first, later}) == "enter"
    assert next_move(writer, False, {first}) == "wait"
    assert next_move(writer, False, {later}) == "claim"
    assert (
        next_move(writer, True, {writer, later}) == "wait"
    )  # keeps its claim, so that no later reader enters
    assert next_move(later, False, {writer}) == "wait"
    assert next_move(later, True, {writer, later}) == "withdraw"
    assert next_move(writer, True, set()) == "claim"  # others took it for dead


def test_a_claim_is_dead_when_it_does_not_change_for_so_long_of_the_observer_s_own_clock() -> None:
    observer = Observer(dead_after=30)
    assert observer.look(1000, {"x/a": 1, "x/b": 1}) == {"x/a", "x/b"}
    assert not observer.surely_alive("x/a")
    assert observer.look(1029, {"x/a": 2, "x/b": 1}) == {"x/a", "x/b"}
    assert observer.look(1031, {"x/a": 2, "x/b": 1}) == {"x/a"}
    assert observer.surely_alive("x/a") and not observer.surely_alive("x/b")
    assert observer.look(1032, {"x/a": 2}, "x/") == {"x/a"}
    assert observer.look(1033, {"x/b": 1}, "x/") == {"x/b"}  # one that comes again is new
    assert not observer.surely_alive("x/a")


class Memory:
    """Claims in memory; each request takes a moment."""

    def __init__(self) -> None:
        self.found: dict[str, int] = {}
        self.guard = threading.Lock()

    def states(self, lock: str) -> dict[str, object]:
        time.sleep(0.001)
        with self.guard:
            return {name: beat for name, beat in self.found.items() if name.startswith(f"{lock}/")}

    def write(self, name: str) -> None:
        time.sleep(0.001)
        with self.guard:
            self.found[name] = self.found.get(name, 0) + 1

    def read(self, name: str) -> dict[str, object]:
        return {"host": "here", "process": self.found[name]}

    def delete(self, name: str) -> None:
        time.sleep(0.001)
        with self.guard:
            self.found.pop(name, None)


def process(claims: Memory, dead: float = 60.0) -> Leases:
    """The leases of one process, quicker than in earnest."""
    return Leases(claims, refresh_seconds=0.02, dead_seconds=dead, poll_seconds=0.005)


@pytest.mark.parametrize("shared", [False, True])
def test_threads_of_several_processes_hold_it_one_after_the_other_or_share_it(shared: bool) -> None:
    claims, world, guard = Memory(), World(), threading.Lock()
    leases, failed = [process(claims) for _ in range(3)], []

    def work(mine: Leases, number: int) -> None:
        me = claim_name(shared, 0, str(number))
        try:
            for _ in range(3):
                with mine.hold("lock", shared):
                    with guard:
                        world.enter(me)
                    time.sleep(0.01)
                    with guard:
                        world.holders.remove(me)
        except BaseException as error:  # told below, in the test's own thread
            failed.append(error)

    threads = [threading.Thread(target=work, args=(leases[n % 3], n)) for n in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert not failed and not any(thread.is_alive() for thread in threads)
    assert claims.found == {}
    assert (world.most_shared > 1) == shared


def test_a_dead_holder_is_waited_for_and_a_living_one_is_not_robbed() -> None:
    claims = Memory()
    claims.write(f"lock/{claim_name(False, 0, 'killed')}")
    waits: list[int] = []
    with process(claims, dead=0.3).hold("lock", waiting=lambda: waits.append(1)):
        assert waits == [1]
        other = process(claims, dead=0.3)
        with other.hold("lock", patient=False) as got:
            assert not got  # it was seen to refresh its claim
        with other.try_hold("lock") as got:
            assert not got
        assert refreshed(claims, 25)  # which takes longer than a claim of the dead is respected
        with other.try_hold("lock") as got:
            assert not got
        with other.try_hold("another") as got:
            assert got
    assert claims.found == {}


def test_an_impatient_one_takes_the_lock_of_a_dead_holder() -> None:
    claims = Memory()
    claims.write(f"lock/{claim_name(False, 0, 'killed')}")
    with process(claims, dead=0.2).hold("lock", patient=False) as got:
        assert got


class Failing(Memory):
    """A few requests of the refresher end in an error that nobody foresaw."""

    left = 0

    def states(self, lock: str) -> dict[str, object]:
        if threading.current_thread().name == "leases" and self.left:
            self.left -= 1
            raise RuntimeError("out of the blue")
        return super().states(lock)


def refreshed(claims: Memory, times: int) -> bool:
    """Whether the one claim is written so many times more within a minute."""
    (name,) = claims.found
    first, deadline = claims.found[name], time.monotonic() + 60
    while claims.found[name] < first + times and time.monotonic() < deadline:
        time.sleep(0.01)
    return claims.found[name] >= first + times


def test_claims_are_refreshed_on_after_any_error_and_by_a_new_thread_where_the_old_one_is_dead(
    caplog: pytest.LogCaptureFixture,
) -> None:
    claims = Failing()
    leases = process(claims)
    claims.left = 3
    with leases.hold("lock"):
        assert refreshed(claims, 2) and not claims.left
    assert [record.message for record in caplog.records if "out of the blue" in record.message] == [
        "A lock cannot be refreshed now, and is tried again: out of the blue"
    ]
    leases = process(claims)
    leases.refresher = threading.Thread()
    with leases.hold("lock"):
        assert refreshed(claims, 2)
    assert claims.found == {}
