"""Results that are deleted once nothing needs them: here words, of which lengths and later capitals are made."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import pytest

from sftlab.execution.build import Build
from sftlab.execution.cost import Cost
from sftlab.execution.outside import OutsideFiles
from sftlab.execution.preview import preview
from sftlab.execution.progress import SilentProgress
from sftlab.execution.run import finish_study, run_study
from sftlab.execution.runtime import Runtime
from sftlab.execution.stage import Stage
from sftlab.files import write_text
from sftlab.store.artifact import Store
from sftlab.store.record import Damaged, Step

STAGES = (
    Stage("words", 1, f"{__name__}:write_words", remains=("note.txt",)),
    Stage("lengths", 1, f"{__name__}:write_lengths"),
    Stage("capitals", 1, f"{__name__}:write_capitals"),
)


@dataclass
class Words:
    """A plan of a word, its double, and what is made of both; `events` keeps the builds of words."""

    capitals: bool = False
    outside: OutsideFiles = field(default_factory=OutsideFiles)
    events: list[str] = field(default_factory=list)

    name = "words"
    stages = STAGES

    @property
    def first(self) -> Step:
        return Step("words", "one", {"word": "one"})

    @property
    def second(self) -> Step:
        """Is made of the first, as a masked model is of its probe."""
        return Step("words", "oneone", {}, {"of": self.first.id})

    def made_of(self, stage: str, step: Step) -> Step:
        return Step(stage, step.slug, {}, {"word": step.id})

    def steps(self) -> Iterator[tuple[Step, Cost]]:
        for step in (self.first, self.second):
            yield step, Cost(trained_tokens=1)
        for step in (self.first, self.second):
            yield self.made_of("lengths", step), Cost()
        if self.capitals:
            yield self.made_of("capitals", self.second), Cost()

    def check(self, stages: Collection[Stage], runtime: Runtime, say: Callable[[str], None]) -> None: ...


def plan_of(build: Build) -> Words:
    assert isinstance(build.plan, Words)
    return build.plan


def word(build: Build, step: Step) -> str:
    record = build.store.find(step)
    if record is not None and record.released:
        raise Damaged(build.path(step), "was deleted")
    return build.read(step, "word.txt").read_text()


def write_words(build: Build) -> None:
    plan = plan_of(build)
    for step in build.missing(plan.first, plan.second):
        plan.events.append(step.slug)
        text = step.slug if step.id == plan.first.id else 2 * word(build, plan.first)
        write_text(build.path(step) / "word.txt", text)
        write_text(build.path(step) / "note.txt", "kept")
        build.commit(step)


def write_lengths(build: Build) -> None:
    plan = plan_of(build)
    for step in (plan.first, plan.second):
        if build.missing(made := plan.made_of("lengths", step)):
            write_text(build.path(made) / "length.txt", str(len(word(build, step))))
            build.commit(made)


def write_capitals(build: Build) -> None:
    plan = plan_of(build)
    made = plan.made_of("capitals", plan.second)
    write_text(build.path(made) / "capital.txt", word(build, plan.second).upper())
    build.commit(made)


def build_of(folder: Path, keep: Literal["full", "recipe"], capitals: bool = False) -> tuple[Build, Words]:
    plan = Words(capitals)
    return Build(plan, Store(folder), Runtime(keep=keep), SilentProgress()), plan


@pytest.mark.parametrize("keep", ["full", "recipe"])
def test_what_remains_is_there_after_a_run_and_the_rest_where_the_runtime_keeps_it(
    keep: Literal["full", "recipe"], tmp_path: Path
) -> None:
    build, plan = build_of(tmp_path, keep)
    run_study(build)
    assert (build.path(plan.first) / "word.txt").exists() == (keep == "full")
    assert build.read(plan.first, "note.txt").read_text() == "kept"
    record = build.store.find(plan.first)
    assert record is not None and record.released == (keep == "recipe")
    assert build.store.verify(lambda line: pytest.fail(line)) == 4
    run_study(build)
    assert plan.events == ["one", "oneone"]


def test_a_run_that_stops_before_a_need_deletes_nothing(tmp_path: Path) -> None:
    build, plan = build_of(tmp_path, "recipe")
    run_study(build, "words")
    assert word(build, plan.first) == "one"


def test_a_later_need_builds_what_was_deleted_with_what_that_is_made_of(tmp_path: Path) -> None:
    run_study(build_of(tmp_path, "recipe")[0])
    build, plan = build_of(tmp_path, "recipe", capitals=True)
    shown = preview(plan, build.store, build.runtime)
    assert [(planned.step.slug, planned.hit) for planned in shown] == [
        ("one", False),
        ("oneone", False),
        ("one", True),
        ("oneone", True),
        ("oneone", False),
    ]
    assert "deleted to save space" in shown[0].reason and shown[0].cost == Cost(trained_tokens=1)
    run_study(build)
    assert plan.events == ["one", "oneone"]
    assert build.read(plan.made_of("capitals", plan.second), "capital.txt").read_text() == "ONEONE"
    assert not (build.path(plan.second) / "word.txt").exists()


def test_a_need_that_no_input_names_builds_it_again_too(tmp_path: Path) -> None:
    run_study(build_of(tmp_path, "recipe")[0])
    build, plan = build_of(tmp_path, "full")
    assert finish_study(build, lambda: word(build, plan.second)) == "oneone"
    assert plan.events == ["one", "oneone"]


def test_a_deletion_that_was_killed_goes_on(tmp_path: Path) -> None:
    build, plan = build_of(tmp_path, "full")
    run_study(build)
    assert build.store.release(plan.first, ("note.txt",)) == 3
    write_text(build.path(plan.first) / "word.txt", "one")  # as if the process had ended before
    assert build.store.release(plan.first, ("note.txt",)) == 3
    assert build.store.release(plan.first, ("note.txt",)) == 0
