"""Results that are deleted once all that is made of them is there, and built again where they are needed."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from sftlab.execution.stage import Stage
from sftlab.store.artifact import Store
from sftlab.store.record import Step


def unused(store: Store, stages: Sequence[Stage], steps: Iterable[Step]) -> list[Step]:
    """The results that no missing step needs and that have files which `Stage.remains` does not name.

    steps: all steps of a study, of which those that are made of a result have its id among their inputs.
    """
    listed = list(steps)
    lacking = {id for step in listed if store.find(step) is None for id in step.inputs.values()}
    remains = {stage.name: stage.remains for stage in stages if stage.remains}
    return [
        step
        for step in listed
        if step.stage in remains and step.id not in lacking and store.spare_files(step, remains[step.stage])
    ]


def release(store: Store, stages: Sequence[Stage], steps: Iterable[Step]) -> int:
    """Delete these files of the `unused` results; returns the freed bytes. Only for one who holds the store."""
    remains = {stage.name: stage.remains for stage in stages}
    return sum(store.release(step, remains[step.stage]) for step in unused(store, stages, steps))


def needed_again(store: Store, stages: Sequence[Stage], steps: Sequence[Step]) -> list[Step]:
    """The released results that a missing step is made of, or another one that is needed again.

    steps: in the order in which they are built.
    """
    kinds = {stage.name for stage in stages if stage.remains}
    deleted = {step.id for step in steps if step.stage in kinds and _is_released(store, step)}
    if not deleted:
        return []
    needed: set[str] = set()
    found = []
    for step in reversed(steps):
        again = step.id in deleted and step.id in needed
        if again:
            found.append(step)
        if again or store.find(step) is None:
            needed.update(step.inputs.values())
    return found[::-1]


def _is_released(store: Store, step: Step) -> bool:
    record = store.find(step)
    return record is not None and record.released
