"""The store: committed results by their ids, in a folder or in an object store."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sftlab.lazy import lazily

if TYPE_CHECKING:
    from sftlab.store.artifact import Store
    from sftlab.store.record import Record, Step

__all__ = ["Record", "Step", "Store"]

__getattr__, __dir__ = lazily(
    __name__,
    {
        "artifact": ["Store"],
        "record": ["Record", "Step"],
    },
)
