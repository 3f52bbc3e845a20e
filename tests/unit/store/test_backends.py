"""What every backend of a store does: a folder, and an object store against a real S3 server, where each store that is
opened is one on another machine.
"""

from __future__ import annotations

import os
import pickle
from abc import ABC, abstractmethod
from pathlib import Path

import pytest

from sftlab.errors import UserError
from sftlab.files import write_text
from sftlab.store.artifact import Store
from sftlab.store.backend import Backend
from sftlab.store.mirror import display_path, forget, pull, push
from sftlab.store.record import RECORD, Damaged, Step
from tests.support.object_machines import STEP, Machines, build, objects_at, objects_of


class Place(ABC):
    """A place of a store, which may be opened many times."""

    @abstractmethod
    def __call__(self) -> Store:
        """The store, as another process sees it."""

    @abstractmethod
    def replace(self, name: str, content: bytes | None) -> None:
        """Change a file of the place, or delete it (None), without the store."""

    @abstractmethod
    def files(self) -> set[str]:
        """All files of the place but those of locks."""


class InFolder(Place):
    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __call__(self) -> Store:
        return Store(self.folder)

    def replace(self, name: str, content: bytes | None) -> None:
        file = self.folder / name
        file.unlink() if content is None else file.write_bytes(content)
        forget(file.parent)  # as in a new process

    def files(self) -> set[str]:
        found = {
            file.relative_to(self.folder).as_posix() for file in self.folder.rglob("*") if file.is_file()
        }
        return {name for name in found if not name.startswith(("locks/", ".lock"))}


class InBucket(Place):
    def __init__(self, machines: Machines) -> None:
        self.machines = machines

    def __call__(self) -> Store:
        return self.machines()

    def replace(self, name: str, content: bytes | None) -> None:
        objects = objects_at(self())
        objects.delete(name) if content is None else objects.write(name, content)

    def files(self) -> set[str]:
        return {name for name in objects_of(self()) if not name.startswith("locks/")}


@pytest.fixture(params=["folder", "bucket"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Place:
    if request.param == "folder":
        return InFolder(tmp_path / "store")
    return InBucket(request.getfixturevalue("machines"))


def test_a_backend_is_pickled_with_its_store(place: Place) -> None:
    build(place())
    store = pickle.loads(pickle.dumps(place()))
    backend: Backend = store.backend
    assert str(store) == str(place()) == str(backend) and store.root == backend.root
    assert store.find(STEP) == place().find(STEP) is not None


def test_a_result_is_found_by_others_once_it_is_committed(place: Place) -> None:
    store = place()
    assert store.find(STEP) is None and not store.is_begun(STEP) and store.records("s") == []
    part = store.work(STEP) / "part"
    write_text(part, "unfinished")
    push(part)
    assert place().is_begun(STEP) and place().find(STEP) is None and not place().is_committed(STEP)
    build(store)
    found = place().find(STEP)
    assert found is not None and found.id == STEP.id and found.bytes == len("payload")
    assert set(found.files) == {"out/a.txt", "b.txt"} and place().is_committed(STEP)
    assert place().records("s") == place().records("s", STEP.id[:9], slug="slug") == [found]
    assert place().records("s", "0" * 12) == place().records("s", slug="other") == place().records("t") == []
    assert "s" in place().stages()
    assert pull(place().path(STEP) / "out" / "a.txt").read_text() == "payload"


def test_committing_the_same_bytes_again_changes_nothing_and_other_bytes_are_refused(place: Place) -> None:
    build(place())
    record = pull(place().path(STEP) / RECORD).read_bytes()
    build(place())
    assert pull(place().path(STEP) / RECORD).read_bytes() == record
    for text in ("PAYLOAD", "something else"):
        with pytest.raises(UserError, match="other content"):
            build(place(), text=text)


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("out/a.txt", b"pay", "has 3 bytes and not 7"),
        ("out/a.txt", None, "out/a.txt is missing"),
        (RECORD, b"{", "record.json is unreadable"),
    ],
)
def test_a_result_that_is_cut_short_is_quarantined_whole_and_built_again(
    place: Place, name: str, content: bytes | None, reason: str
) -> None:
    build(place())
    assert place().damage(STEP) is None and place().quarantine(STEP, thoroughly=True) is None
    place.replace(f"s/{STEP.folder}/{name}", content)
    store = place()
    assert store.find(STEP) is None and reason in (store.damage(STEP) or "")
    assert (store.records("s") == []) == (name == RECORD)
    line = store.quarantine(STEP)
    assert line is not None and "set aside as" in line and reason in line
    assert store.find(STEP) is None and not store.is_begun(STEP) and store.damage(STEP) is None
    kept = {file.partition(f"/s/{STEP.folder}/")[2] for file in place.files()}
    assert kept == {"out/a.txt", "b.txt", RECORD} - ({name} if content is None else set())
    assert all(file.startswith("damaged/") for file in place.files())
    build(store)
    assert place().find(STEP) is not None and [record.id for record in place().records("s")] == [STEP.id]


def test_other_bytes_of_the_same_size_are_found_by_readers_and_by_verify(place: Place) -> None:
    other = Step("s", "other", {})
    for step in (STEP, other):
        build(place(), step)
    place.replace(f"s/{STEP.folder}/out/a.txt", b"paYload")
    store, lines = place(), list[str]()
    assert store.find(STEP) is not None
    with pytest.raises(Damaged, match=r"out/a\.txt has other bytes than recorded") as error:
        pull(store.path(STEP) / "out")
    assert error.value.folder == store.path(STEP)
    assert store.verify(lines.append, keep=True) == 1 and store.find(STEP) is not None
    assert store.verify(lines.append) == 1 and store.find(STEP) is None
    assert [f"s/{STEP.folder} is damaged" in line for line in lines] == [True, True]
    assert display_path(store.root / "damaged") in lines[1]
    build(store)
    assert place().verify(lines.append) == 2 and len(lines) == 2


def test_one_listing_answers_for_all_steps_of_a_stage(place: Place) -> None:
    one, two = place(), place()
    steps = [Step("s", f"slug{n}", {"n": n}) for n in range(6)]
    for step in steps[:2]:
        build(one, step)
    part = one.work(steps[2]) / "part"
    write_text(part, "x")
    push(part)
    with two.listed("s", "t"):
        assert [two.is_committed(step) for step in steps] == [True] * 2 + [False] * 4
        assert [two.find(step) is not None for step in steps] == [True] * 2 + [False] * 4
        assert [two.is_begun(step) for step in steps] == [True] * 3 + [False] * 3
        build(one, steps[3])
        assert not two.is_committed(steps[3])
    assert two.is_committed(steps[3]) and len(two.records("s")) == 3
    with two.listed("s", names_only=True):
        assert [two.is_committed(step) for step in steps] == [True, True, False, True, False, False]


def test_a_result_is_found_under_whichever_label_it_was_committed(place: Place) -> None:
    named, unnamed = Step("facts", "my-study", {"a": 1}), Step("facts", "facts", {"a": 1})
    one = place()
    assert one.path(unnamed).name == f"facts-{unnamed.id[:12]}"
    part = one.work(named) / "part"
    write_text(part, "unfinished")
    push(part)
    two = place()
    assert two.path(unnamed).name == named.folder and two.is_begun(unnamed) and two.find(unnamed) is None
    build(one, named)
    assert two.find(unnamed) == one.find(named)
    three = place()
    with three.listed("facts"):
        assert three.is_committed(unnamed) and three.find(unnamed) == one.find(named)
    assert pull(three.path(unnamed) / "out" / "a.txt").read_text() == "payload"
    build(three, unnamed)  # the same bytes again, and no second folder
    assert {name.split("/")[1] for name in place.files() if name.startswith("facts/")} == {named.folder}


def test_builders_exclude_each_other_and_those_that_share_do_not(place: Place) -> None:
    store, other = place(), place()
    with store.exclusive():
        assert [(holder.process, holder.shared) for holder in other.holders()] == [(os.getpid(), False)]
        with pytest.raises(UserError, match="another run is building"), other.exclusive():
            pass
    with store.shared(), other.shared(), pytest.raises(UserError, match="another run is building"):
        with place().exclusive():
            pass
    with store.exclusive():
        pass
    assert place().holders() == []


def test_a_named_lock_is_held_by_one_at_a_time(place: Place) -> None:
    store, other = place(), place()
    with store.lock("b", "a", "a"):
        for name, free in (("a", False), ("b", False), ("c", True)):
            with other.try_lock(name) as got:
                assert got == free
    with other.try_lock("a") as got:
        assert got
