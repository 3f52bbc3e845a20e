"""Damaged results are quarantined and built again, wherever in a run they are found."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager
from typing import TypeVar

from sftlab.execution.progress import Progress
from sftlab.store.artifact import Store
from sftlab.store.record import Damaged, Step

# How often one run quarantines one result; a disk that damages it again needs a person's attention.
TIMES = 2

Done = TypeVar("Done")


def repairing(
    work: Callable[[], Done],
    store: Store,
    progress: Progress,
    steps: Callable[[], Iterable[Step]],
    guard: Callable[[Step], AbstractContextManager[object]],
) -> Done:
    """Do the work; each time that it finds one of the `steps()` damaged, quarantine that one and repeat the work.

    `work` builds whatever is missing, so that repeating it builds what was quarantined. `guard` keeps others from
    building a step meanwhile. Raises Damaged for other results, and where a step is damaged again and again.
    """
    seen = Counter[str]()
    while True:
        try:
            return work()
        except Damaged as damaged:
            step = next((step for step in steps() if store.path(step) == damaged.folder), None)
            if step is None or seen[step.id] == TIMES:
                raise
            seen[step.id] += 1
            with guard(step):
                notice = store.quarantine(step, thoroughly=True)
            if notice is not None:
                progress.say(notice)
