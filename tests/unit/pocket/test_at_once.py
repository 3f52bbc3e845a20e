"""Which base is pre-trained when; tests/ray/test_pocket_model.py pre-trains in processes."""

from __future__ import annotations

from pathlib import Path

from sftlab.pocket.at_once import BaseTask, order_of
from sftlab.pocket.spec import FamilySpec, PocketRuntime, Shape

LARGE = Shape(hidden=160, layers=6, heads=5, intermediate=424, vocabulary=700)


def task(scale: float, after: str | None = None, shape: Shape | None = None) -> BaseTask:
    spec = FamilySpec(scale=scale) if shape is None else FamilySpec(scale=scale, shape=shape)
    return BaseTask(spec, (0, 24), Path("base"), PocketRuntime(), after=after)


def test_the_base_with_the_longest_work_after_it_is_begun_first() -> None:
    tasks = {"a": task(1.0), "a2": task(0.3, after="a"), "b": task(1.2), "c": task(1.0, shape=LARGE)}
    assert order_of(tasks) == ["c", "a", "b", "a2"]


def test_the_work_of_a_base_is_its_text_times_its_parameters() -> None:
    layer = 4 * 160**2 + 3 * 160 * 424
    assert task(0.5, shape=LARGE).work == 0.5 * (6 * layer + 700 * 160)
