"""Locks of a store in an object store, against a real S3 server: builders on several machines."""

from __future__ import annotations

import threading
import time
from itertools import count

import pytest

from sftlab.errors import UserError
from sftlab.store.leases import Leases
from sftlab.store.mirror import pull
from sftlab.store.object_locks import ObjectClaims
from sftlab.store.objects import open_objects, parse_address
from tests.support.object_machines import STEP, Machines, build, objects_at


def other_process(address: str, dead: float = 30.0) -> Leases:
    """The leases of another process, which refreshes quickly so that the test need not wait."""
    objects = open_objects(parse_address(address))
    return Leases(ObjectClaims(objects, count()), refresh_seconds=0.3, dead_seconds=dead, poll_seconds=0.1)


def test_two_drivers_exclude_each_other_and_a_dead_one_is_forgotten(machines: Machines) -> None:
    store = machines()
    with (
        other_process(machines.address).hold("store"),
        pytest.raises(UserError, match="another run is building"),
    ):
        with store.exclusive():
            pass
    with store.shared(), store.shared():
        pass
    (claims,) = [other_process(machines.address).claims]
    claims.write("x/00000000000000000000-killed-alone")
    with other_process(machines.address, dead=0.5).hold("x"):
        assert len(objects_at(store).below("locks")) == 1


def test_of_builders_on_many_machines_one_builds(machines: Machines) -> None:
    built: list[int] = []
    failed: list[BaseException] = []

    def work(number: int) -> None:
        try:
            store = machines()
            with other_process(machines.address).hold(STEP.lock):
                if store.find(STEP) is None:
                    built.append(number)
                    time.sleep(0.2)
                    build(store)
            assert pull(store.path(STEP) / "out" / "a.txt").read_text() == "payload"
        except BaseException as error:  # told below, in the test's own thread
            failed.append(error)

    threads = [threading.Thread(target=work, args=(n,)) for n in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert not failed and len(built) == 1
    store = machines()
    assert objects_at(store).below("locks") == {}
    with store.try_lock("free") as got:
        assert got
    with store.lock("b", "a", "a"):
        assert len(objects_at(store).below("locks")) == 2
