"""Damage that is found on the way is set aside, and the work begun again; damage without end is told."""

from __future__ import annotations

from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from sftlab.cli.store import verify_results as verify
from sftlab.errors import UserError
from sftlab.execution.progress import SilentProgress
from sftlab.execution.repair import TIMES, repairing
from sftlab.files import write_text
from sftlab.store.artifact import Store
from sftlab.store.mirror import HASH_LIMIT, forget, pull
from sftlab.store.record import Damaged, Step

FIRST = Step("facts", "a", {})
SECOND = Step("results", "b", {}, {"a": FIRST.id})


class Told(SilentProgress):
    """Keeps what is said."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def say(self, text: str) -> None:
        self.lines.append(text)


class Study:
    """Two steps, each a file; the second is made from the first."""

    def __init__(self, folder: Path) -> None:
        self.store, self.told, self.built = Store(folder), Told(), [""]

    def file(self, step: Step) -> Path:
        return self.store.path(step) / "out.txt"

    def build(self, step: Step, text: str) -> None:
        if self.store.find(step) is None:
            assert self.store.quarantine(step) is None or not self.store.path(step).exists()
            write_text(self.file(step), text)
            self.store.commit(step)
            self.built.append(step.stage)

    def work(self) -> str:
        self.built.clear()
        self.build(FIRST, "facts")
        self.build(SECOND, f"made of {pull(self.file(FIRST)).read_text()}")
        return pull(self.file(SECOND)).read_text()

    def run(self) -> str:
        def guard(step: Step) -> AbstractContextManager[None]:
            return self.store.lock(step.lock)

        return repairing(self.work, self.store, self.told, lambda: (FIRST, SECOND), guard)

    def flip(self, step: Step) -> None:
        file = self.file(step)
        file.write_text(file.read_text().upper())
        forget(self.store.path(step))  # as in a new process


@pytest.fixture
def study(tmp_path: Path) -> Study:
    made = Study(tmp_path)
    assert made.run() == "made of facts" and made.built == ["facts", "results"]
    return made


def test_whatever_is_damaged_is_built_again_and_told_with_one_line(study: Study) -> None:
    for step in (FIRST, SECOND):
        study.flip(step)
        study.told.lines.clear()
        assert study.run() == "made of facts"
        (line,) = study.told.lines
        assert line.startswith(
            f"{step.stage}/{step.folder} is damaged (out.txt has other bytes than recorded)"
        )
        assert study.built == [step.stage]
    assert len(list((study.store.root / "damaged").glob("*/*/*/out.txt"))) == 2
    assert study.run() == "made of facts" and study.built == []


def test_files_above_the_limit_are_compared_by_size_alone(
    study: Study, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(HASH_LIMIT, "0")
    study.flip(FIRST)
    assert study.run() == "made of facts" and study.built == []
    monkeypatch.setenv(HASH_LIMIT, "inf")
    forget(study.store.path(FIRST))
    assert study.run() == "made of facts" and study.built == ["facts"]


def test_damage_of_another_s_result_or_without_end_is_raised(study: Study) -> None:
    def broken() -> None:
        study.work()
        study.flip(FIRST)
        pull(study.file(FIRST))

    def damaged(step: Step) -> None:
        raise Damaged(study.store.path(step), "always")

    with pytest.raises(Damaged, match=r"out\.txt has other bytes"):
        repairing(broken, study.store, study.told, lambda: (FIRST,), lambda step: study.store.lock(step.lock))
    assert len(study.told.lines) == TIMES
    other = Step("facts", "other", {})
    with pytest.raises(Damaged, match="always"):
        repairing(
            lambda: damaged(other), study.store, study.told, lambda: (FIRST,), lambda _: study.store.lock("x")
        )


def test_verify_of_a_folder_that_is_none_is_told_and_makes_none(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="typo: no store is there"):
        verify(Store(tmp_path / "typo"))
    assert not (tmp_path / "typo").exists()


def test_verify_reads_everything_and_fails_where_something_was_damaged(
    study: Study, capsys: pytest.CaptureFixture[str]
) -> None:
    verify(study.store)
    assert "2 results are sound" in capsys.readouterr().out
    study.flip(SECOND)
    with pytest.raises(UserError, match="1 results were damaged"):
        verify(study.store)
    assert "results/b-" in capsys.readouterr().out
    verify(study.store)
