"""A user who may read a store and not write there: planning and verifying work, and nothing is written."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from sftlab.cli.store import verify_results
from sftlab.cli.study import study_plan
from sftlab.files import may_write, write_text
from sftlab.store.artifact import Store
from sftlab.store.hashes import FileHashes
from sftlab.store.record import Step
from tests.support.refusals import refused

CONFIGS = Path(__file__).parents[3] / "jobs" / "configs"


def drop_privileges() -> None:
    """Give up what lets root write everywhere (all capabilities), in this process."""
    version = 0x20080522  # of the structure: two groups of effective, permitted, inheritable
    header, none = (ctypes.c_uint32 * 2)(version, 0), (ctypes.c_uint32 * 6)()
    if ctypes.CDLL(None, use_errno=True).capset(header, none) != 0:
        raise OSError(ctypes.get_errno(), "capset")


def as_reader(work: Callable[[], object]) -> str:
    """What `work` raises in a process that may only read, as text; "" for nothing."""
    read_end, write_end = os.pipe()
    child = os.fork()
    if child == 0:
        text = ""
        try:
            drop_privileges()
            work()
        except BaseException as error:
            text = f"{type(error).__name__}: {error}"
        os.write(write_end, text.encode())
        os._exit(0)
    os.close(write_end)
    with os.fdopen(read_end) as answer:
        text = answer.read()
    os.waitpid(child, 0)
    return text


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    """A store with one result that a reader may enter and not change."""
    store = Store(tmp_path / "store")
    step = Step("facts", "facts", {"n": 1})
    write_text(store.path(step) / "file", "content")
    store.commit(step)
    folders = [store.root, *(path for path in store.root.rglob("*") if path.is_dir())]
    for folder in folders:
        folder.chmod(0o555)
    yield store
    for folder in filter(Path.exists, folders):
        folder.chmod(0o755)


def snapshot(store: Store) -> dict[str, int]:
    return {str(path): path.stat().st_mtime_ns for path in store.root.rglob("*")}


def test_a_reader_plans_and_verifies(store: Store, tmp_path: Path) -> None:
    before = snapshot(store)

    def plan() -> None:
        assert not may_write(store.root)
        study_plan(CONFIGS / "tiny.yaml", None, store.root, ["runtime.track=false"], False)

    assert as_reader(plan) == ""
    assert as_reader(lambda: verify_results(Store(store.root))) == ""
    big = tmp_path / "weights"
    big.write_bytes(b"x" * 100)
    big.chmod(0o644)
    hashes = lambda: FileHashes(store.root / "hashes.json", smallest=1, settle_seconds=0).of([big])  # noqa: E731
    assert as_reader(hashes) == ""
    assert snapshot(store) == before


def test_a_reader_is_told_of_damage_that_stays(store: Store) -> None:
    (file,) = store.root.glob("facts/*/file")
    file.chmod(0o644)
    file.write_text("damaged")
    before = snapshot(store)
    told = as_reader(lambda: verify_results(Store(store.root)))
    assert told == (
        "UserError: 1 results were damaged; this user may not write in the store and cannot quarantine them."
    )
    assert snapshot(store) == before
    with refused("1 results were damaged and are quarantined"):
        for folder in (store.root, *(path for path in store.root.rglob("*") if path.is_dir())):
            folder.chmod(0o755)
        verify_results(Store(store.root))
