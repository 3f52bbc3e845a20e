"""Stores at one address of an object store, as several machines have them."""

from __future__ import annotations

from itertools import count
from pathlib import Path

from sftlab.files import write_text
from sftlab.store.artifact import Store
from sftlab.store.objects import Objects
from sftlab.store.record import Step
from sftlab.store.remote import Bucket
from tests.support.s3_server import S3Server

STEP = Step("s", "slug", {"a": 1})


class Machines:
    """Stores of one address, each with a mirror of its own."""

    def __init__(self, server: S3Server, prefix: str, folder: Path) -> None:
        self.address, self.folder, self.number = server.address(prefix), folder, count()

    def __call__(self) -> Store:
        return Store(self.address, self.folder / f"machine-{next(self.number)}")


def build(store: Store, step: Step = STEP, text: str = "payload") -> None:
    write_text(store.path(step) / "out" / "a.txt", text)
    write_text(store.path(step) / "b.txt", "")
    store.commit(step)


def objects_of(store: Store) -> dict[str, int]:
    return {name: found.bytes for name, found in objects_at(store).below().items()}


def objects_at(store: Store) -> Objects:
    """The objects of a store in an object store, as they are there."""
    assert isinstance(store.backend, Bucket)
    return store.backend.mirror.objects
