"""The locks of a store in an object store: the leases of `leases`, as objects below `locks/`."""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache
from itertools import count
from typing import Any
from urllib.parse import quote, unquote

from sftlab.config.documents import parse_json
from sftlab.errors import UserError
from sftlab.store.leases import Leases
from sftlab.store.locks import LOCKS, Holder, utc_text
from sftlab.store.objects import Address, Objects, open_objects

WHOLE = "store"  # name of the lock on everything


@dataclass(frozen=True)
class ObjectClaims:
    """The claims of `leases`, all directly below `locks/`: deleting an object may leave its folder behind."""

    objects: Objects
    beats: count[int]

    def states(self, lock: str) -> dict[str, object]:
        found = self.objects.below(LOCKS).items()
        claims = {
            unquote(name.removeprefix(f"{LOCKS}/")): (there.bytes, there.changed) for name, there in found
        }
        return {name: state for name, state in claims.items() if name.startswith(f"{lock}/")}

    def write(self, name: str) -> None:
        content = {"beat": next(self.beats), "host": socket.gethostname(), "process": os.getpid()}
        self.objects.write(f"{LOCKS}/{quote(name, safe='')}", json.dumps(content).encode())

    def read(self, name: str) -> dict[str, Any]:
        content = self.objects.read(f"{LOCKS}/{quote(name, safe='')}")
        found = parse_json(content or b"{}", name, "its builder writes it again.")
        return found if isinstance(found, dict) else {}

    def delete(self, name: str) -> None:
        self.objects.delete(f"{LOCKS}/{quote(name, safe='')}")


@cache
def leases_of(address: Address) -> Leases:
    """This process's locks in the store at an address."""
    return Leases(ObjectClaims(open_objects(address), count()))


@dataclass(frozen=True)
class LeaseLocks:
    """Locks by leases: they reach as far as the object store, and are freed some seconds after a process ends."""

    address: Address

    @contextmanager
    def hold(self, name: str) -> Iterator[None]:
        with leases_of(self.address).hold(name):
            yield

    @contextmanager
    def try_hold(self, name: str) -> Iterator[bool]:
        with leases_of(self.address).try_hold(name) as got:
            yield got

    @contextmanager
    def hold_whole(self, shared: bool, waiting: Callable[[], None] | None, busy: UserError) -> Iterator[None]:
        leases = leases_of(self.address)
        with leases.hold(WHOLE, shared, waiting, patient=waiting is not None) as got:
            if not got:
                raise busy
            yield

    def holders(self) -> list[Holder]:
        """Those whose claims are seen to be refreshed, which takes some seconds."""
        leases = leases_of(self.address)
        found = [_holder(name, leases.claims.read(name)) for name in leases.refreshed(WHOLE)]
        return sorted(found, key=lambda holder: holder.since)


def _holder(claim: str, content: dict[str, Any]) -> Holder:
    began, _, rest = claim.rpartition("/")[2].partition("-")
    since = utc_text(datetime.fromtimestamp(int(began) / 1e9, UTC))
    host, process = str(content.get("host", "unknown")), int(content.get("process", 0))
    return Holder(host, process, since, rest.endswith("-shared"))
