"""The runner and the preview know stages and a plan alone: here those of a study of two steps that counts letters."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from sftlab.errors import UserError
from sftlab.execution.build import Build
from sftlab.execution.cost import Cost
from sftlab.execution.outside import OutsideFiles
from sftlab.execution.preview import preview
from sftlab.execution.progress import SilentProgress
from sftlab.execution.run import finish_study, found_text, run_study
from sftlab.execution.runtime import Runtime
from sftlab.execution.stage import Stage
from sftlab.files import write_text
from sftlab.inference.spec import EngineRuntime
from sftlab.store.artifact import Store
from sftlab.store.hashes import FileHashes
from sftlab.store.mirror import forget
from sftlab.store.outside import hashed_outside
from sftlab.store.record import Step
from tests.support.refusals import refused

WORDS = Stage("words", 1, f"{__name__}:write_words")
LENGTHS = Stage("lengths", 2, f"{__name__}:write_lengths", starts_engines="engine")


@dataclass
class Letters:
    """A plan of words and their lengths; `events` keeps what was called, in order."""

    words: tuple[str, ...]
    refused: str | None = None
    outside: OutsideFiles = field(default_factory=OutsideFiles)
    events: list[str] = field(default_factory=list)

    name = "letters"
    stages = (WORDS, LENGTHS)

    def written(self) -> list[Step]:
        return [Step("words", word, {"word": word}) for word in self.words]

    def counted(self) -> list[Step]:
        return [Step("lengths", step.slug, {}, {"word": step.id}, 2) for step in self.written()]

    def steps(self) -> Iterator[tuple[Step, Cost]]:
        for step in self.written():
            yield step, Cost()
        for step in self.counted():
            yield step, Cost(completions=1)

    def check(self, stages: Collection[Stage], runtime: Runtime, say: Callable[[str], None]) -> None:  # noqa: ARG002
        self.events.append(f"check {' '.join(stage.name for stage in stages)}")
        if self.refused is not None:
            raise UserError(self.refused)


def write_words(build: Build) -> None:
    assert isinstance(build.plan, Letters)
    build.plan.events.append("words")
    for step in build.missing(*build.plan.written()):
        write_text(build.path(step) / "word.txt", step.slug)
        build.commit(step)


def write_lengths(build: Build) -> None:
    assert isinstance(build.plan, Letters)
    build.plan.events.append("lengths")
    steps = zip(build.plan.written(), build.plan.counted(), strict=True)
    for word, step in steps:
        if build.missing(step):
            write_text(build.path(step) / "length.txt", str(len(build.read(word, "word.txt").read_text())))
            build.commit(step)


def build_of(folder: Path, plan: Letters) -> Build:
    return Build(plan, Store(folder), Runtime(), SilentProgress())


def lengths(build: Build) -> list[int]:
    assert isinstance(build.plan, Letters)
    return [int(build.read(step, "length.txt").read_text()) for step in build.plan.counted()]


def flip(build: Build, step: Step, name: str, text: str) -> None:
    """Damage a result after it was committed, as seen by a new process; `text` has the length of the right one."""
    (build.path(step) / name).write_text(text)
    forget(build.path(step))


def test_a_stage_builds_all_its_steps_before_the_next_begins(tmp_path: Path) -> None:
    build = build_of(tmp_path, plan := Letters(("one", "seven")))
    assert found_text(build) == "0 of 4 steps are HITs, 4 to build"
    run_study(build, "words")
    assert plan.events == ["check words", "words"]
    assert found_text(build, "words") == "2 of 2 steps are HITs"
    run_study(build)
    assert plan.events == ["check words", "words", "check lengths", "lengths"]
    assert lengths(build) == [3, 5]
    run_study(build)
    assert len(plan.events) == 4


def test_what_the_plan_refuses_is_raised_before_the_first_stage(tmp_path: Path) -> None:
    build = build_of(tmp_path, plan := Letters(("one",), refused="no words here"))
    with pytest.raises(UserError, match="no words here"):
        run_study(build)
    assert plan.events == ["check words lengths"] and not build.path(plan.written()[0]).exists()


def test_a_step_made_of_a_changed_file_is_not_committed(tmp_path: Path) -> None:
    file = tmp_path / "in.txt"
    write_text(file, "before")
    read = hashed_outside(file, lambda path: [path], FileHashes(tmp_path / "hashes"))
    build = build_of(tmp_path / "store", plan := Letters(("one",), outside=OutsideFiles({"lengths": [read]})))
    write_text(file, "after!")
    with refused("has changed since.*stage lengths", place="in.txt"):
        run_study(build)
    assert build.missing(*plan.written(), *plan.counted()) == plan.counted()


def test_damage_that_the_reader_finds_is_built_again_in_the_same_run(tmp_path: Path) -> None:
    build = build_of(tmp_path, plan := Letters(("one", "seven")))
    run_study(build)
    flip(build, plan.counted()[1], "length.txt", "9")
    assert finish_study(build, lambda: lengths(build)) == [3, 5]
    assert plan.events[-2:] == ["check lengths", "lengths"]
    assert finish_study(build, lambda: lengths(build)) == [3, 5] and len(plan.events) == 5


def test_damage_that_a_stage_finds_is_built_again_and_the_store_is_held_until_the_end(tmp_path: Path) -> None:
    build = build_of(tmp_path, plan := Letters(("one",)))
    run_study(build, "words")
    flip(build, plan.written()[0], "word.txt", "ONE")

    def read() -> list[int]:
        with pytest.raises(UserError, match="another run is building here"), build.store.exclusive():
            pass
        return lengths(build)

    assert finish_study(build, read) == [3]
    assert plan.events == [
        "check words",
        "words",
        "check lengths",
        "lengths",
        "check words lengths",
        "words",
        "lengths",
    ]
    with build.store.exclusive():
        assert lengths(build) == [3]


def test_the_preview_counts_engines_once_for_a_stage_that_starts_them(tmp_path: Path) -> None:
    build = build_of(tmp_path, plan := Letters(("one", "seven")))
    runtime = Runtime(engine=EngineRuntime(engines=3))
    run_study(build, "words")
    rows = preview(plan, build.store, runtime)
    assert [(row.step.stage, row.hit) for row in rows] == [
        ("words", True),
        ("words", True),
        ("lengths", False),
        ("lengths", False),
    ]
    assert [row.cost.engine_starts for row in rows] == [0, 0, 3, 0]
    assert [row.cost.completions for row in rows] == [0, 0, 1, 1]
    assert rows[2].reason == "not in the store"
    longer = preview(Letters(("one", "eleven")), build.store, runtime)
    assert [row.hit for row in longer] == [True, False, False, False]
    assert longer[1].reason == "word: one -> eleven"
    assert longer[3].reason == "needs word first"
