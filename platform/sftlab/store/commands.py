"""What `sftlab verify` does."""

from __future__ import annotations

from sftlab.errors import UserError
from sftlab.store.artifact import Store


def verify(store: Store) -> None:
    """Read all results, set the damaged ones aside, and print what was found.

    Raises UserError where some were damaged, where another run builds in the store, and where there is none.
    """
    if not store.stages():  # asked before a lock is made, with which a folder would come to be
        raise UserError(f"{store}: no store is there; mend --store (runtime.store).")
    lines: list[str] = []

    def tell(line: str) -> None:
        lines.append(line)
        print(line, flush=True)

    with store.exclusive():
        sound = store.verify(tell)
    print(f"{store}: {sound:,} results are sound", flush=True)
    if lines:
        raise UserError(
            f"{len(lines):,} results were damaged and are set aside; the next run builds them again."
        )
