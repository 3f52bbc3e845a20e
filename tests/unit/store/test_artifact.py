"""The store: ids, commits, hits, and what is refused."""

from __future__ import annotations

import errno
import fcntl
import json
import math
import pickle
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sftlab.errors import UserError
from sftlab.files import write_text
from sftlab.store.artifact import Store
from sftlab.store.fingerprint import canonical_json, fingerprint
from sftlab.store.mirror import drop, pull, push
from sftlab.store.record import RECORD, Damaged, Step, differences, parse_record
from tests.support.refusals import refused

PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)


def build(store: Store, step: Step, text: str = "payload") -> None:
    write_text(store.path(step) / "out" / "a.txt", text)
    store.commit(step)


def test_the_id_of_a_step_is_golden() -> None:
    assert fingerprint("tuned", 1, {"rate": 1e-5, "lora": None}, {"model": "ab"}) == (
        "3cbeeba06c411ae0509b8965da46c14a7700755a67652247c54378754f8bcb97"
    )


def test_fields_left_at_none_move_no_id() -> None:
    assert fingerprint("s", 1, {"a": 1, "new": None}, {}) == fingerprint("s", 1, {"a": 1}, {})


def test_stage_revision_spec_and_inputs_all_move_the_id() -> None:
    base = fingerprint("s", 1, {"a": 1}, {"x": "1"})
    others = [
        fingerprint("t", 1, {"a": 1}, {"x": "1"}),
        fingerprint("s", 2, {"a": 1}, {"x": "1"}),
        fingerprint("s", 1, {"a": 2}, {"x": "1"}),
        fingerprint("s", 1, {"a": 1}, {"x": "2"}),
    ]
    assert len({base, *others}) == 5


@settings(max_examples=25, deadline=None)
@given(st.dictionaries(st.text(), PLAIN, max_size=5))
def test_canonical_json_does_not_depend_on_the_order_of_keys(value: dict[str, object]) -> None:
    reordered = dict(reversed(list(value.items())))
    assert canonical_json(value) == canonical_json(reordered)
    json.loads(canonical_json(value))


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_numbers_that_are_not_finite_have_no_fingerprint(value: float) -> None:
    with pytest.raises(ValueError, match="fingerprint"):
        canonical_json({"a": value})


def test_what_has_no_single_json_form_is_refused() -> None:
    with pytest.raises(TypeError):
        canonical_json({"a": {1, 2}})
    with pytest.raises(TypeError):
        canonical_json({1: "a"})


def test_a_flipped_bit_is_found_where_the_file_is_first_read_and_by_verify(tmp_path: Path) -> None:
    store, good, bad = Store(tmp_path), Step("s", "good", {}), Step("s", "bad", {})
    build(store, good)
    build(store, bad)
    file = store.path(bad) / "out" / "a.txt"
    file.write_text("paYload")
    assert store.find(bad) is not None  # sizes alone tell nothing
    assert pull(store.path(good) / "out" / "a.txt").read_text() == "payload"
    for path in (file, store.path(bad), store.path(bad) / "out"):
        with pytest.raises(Damaged, match=r"out/a\.txt has other bytes than recorded") as told:
            pull(path)
        assert told.value.folder == store.path(bad)
    copy = pickle.loads(pickle.dumps(told.value))
    assert (str(copy), copy.folder) == (str(told.value), told.value.folder)
    lines: list[str] = []
    assert store.verify(lines.append) == 1
    assert len(lines) == 1 and "s/bad-" in lines[0]
    assert store.find(bad) is None and store.find(good) is not None
    build(store, bad)
    assert pull(file).read_text() == "payload"


@pytest.mark.parametrize("content", [b"", b"{", b"[1, 2]", b"\xff\x00", b"[" * 100_000])
def test_bytes_that_are_no_record_are_damage(tmp_path: Path, content: bytes) -> None:
    with pytest.raises(Damaged, match=r"record\.json is unreadable") as error:
        parse_record(content, tmp_path / RECORD)
    assert error.value.folder == tmp_path


def test_a_record_that_is_not_that_of_its_id_is_damaged(tmp_path: Path) -> None:
    store, step = Store(tmp_path), Step("s", "slug", {"a": 1})
    build(store, step)
    path = store.path(step) / RECORD
    path.write_text(path.read_text().replace(step.id, step.id[:-1] + ("0" if step.id[-1] != "0" else "1")))
    assert "does not belong to its id" in (store.damage(step) or "")


@pytest.mark.parametrize("name", ["../x", "/etc/passwd", "a/../../x", "a//b", ""])
def test_a_record_whose_files_lie_elsewhere_is_none(tmp_path: Path, name: str) -> None:
    store, step = Store(tmp_path), Step("s", "slug", {})
    build(store, step)
    path = store.path(step) / RECORD
    path.write_text(path.read_text().replace("out/a.txt", name))
    assert "is no path within the folder" in (store.damage(step) or "")


def test_what_is_no_result_of_a_store_is_not_checked(tmp_path: Path) -> None:
    folder = tmp_path / "my-model-0123456789ab" / "sub"
    folder.mkdir(parents=True)
    assert pull(folder / "missing.txt") == folder / "missing.txt"
    push(folder)
    (folder / "part").write_text("x")
    drop(folder / "part")
    drop(folder)
    assert not folder.exists()


def test_differences_name_the_fields(tmp_path: Path) -> None:
    store, step = Store(tmp_path), Step("s", "slug", {"sft": {"rate": 1e-5, "batch": 8}}, {"model": "aa"})
    build(store, step)
    record = store.find(step)
    assert record is not None
    assert differences({"sft": {"rate": 3e-4, "batch": 8}}, {"model": "aa"}, record) == [
        "sft.rate: 1e-05 -> 0.0003"
    ]
    assert differences(step.spec, {"model": "bb"}, record) == ["input.model: aa -> bb"]


@pytest.mark.parametrize("below", ["", "x/y"])
def test_a_file_in_the_way_of_the_store_is_refused_at_once(tmp_path: Path, below: str) -> None:
    (tmp_path / "file").write_text("x")
    with refused("file is a file", advice="give a folder by --store"):
        Store(tmp_path / "file" / below)


def test_a_store_that_the_system_refuses_to_make_is_a_user_error() -> None:
    store = Store(Path("/proc/sftlab-store"))
    with refused("cannot be made a folder", place="proc/sftlab-store"), store.exclusive():
        pass
    with pytest.raises(UserError, match=r"/proc/sftlab-store/s/slug-.*: cannot be made a folder"):
        store.work(Step("s", "slug", {}))


def test_a_file_system_without_locks_is_told_and_how_to_mend_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", refuse)
    store = Store(tmp_path)
    with pytest.raises(UserError, match=r"No locks available.*NFS"), store.lock("x"):
        pass
    with pytest.raises(UserError, match="No locks available"), store.try_lock("x"):
        pass
    with pytest.raises(UserError, match="No locks available"), store.exclusive():
        pass
