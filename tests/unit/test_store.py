"""The store: ids, commits, hits, and what is refused."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sftlab.errors import UserError
from sftlab.store.artifact import RECORD, Step, Store, differences, write_text
from sftlab.store.fingerprint import canonical_json, fingerprint, folder_hash

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


@given(st.dictionaries(st.text(), PLAIN))
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


def test_an_uncommitted_step_is_no_hit_and_a_committed_one_is(tmp_path: Path) -> None:
    store, step = Store(tmp_path), Step("s", "slug", {"a": 1})
    assert store.find(step) is None
    store.path(step).mkdir(parents=True)
    (store.work(step) / "part").write_text("unfinished")
    assert store.find(step) is None
    build(store, step)
    record = store.find(step)
    assert record is not None and record.id == step.id
    assert set(record.files) == {"out/a.txt"} and record.bytes == len("payload")
    assert [r.id for r in store.records("s")] == [step.id]


def test_committing_the_same_bytes_again_changes_nothing_and_other_bytes_are_refused(tmp_path: Path) -> None:
    store, step = Store(tmp_path), Step("s", "slug", {"a": 1})
    build(store, step)
    before = (store.path(step) / RECORD).read_bytes()
    build(store, step)
    assert (store.path(step) / RECORD).read_bytes() == before
    with pytest.raises(UserError, match="other content"):
        build(store, step, "something else")


def test_a_payload_that_was_cut_short_or_lost_is_found(tmp_path: Path) -> None:
    store, step = Store(tmp_path), Step("s", "slug", {})
    build(store, step)
    payload = store.path(step) / "out" / "a.txt"
    payload.write_text("pay")
    with pytest.raises(UserError, match="has 3 bytes where the record says 7"):
        store.find(step)
    payload.unlink()
    with pytest.raises(UserError, match="has 0 bytes"):
        store.find(step)


def test_a_damaged_record_names_its_file(tmp_path: Path) -> None:
    store, step = Store(tmp_path), Step("s", "slug", {})
    build(store, step)
    (store.path(step) / RECORD).write_text("{")
    with pytest.raises(UserError, match=RECORD):
        store.find(step)


def test_differences_name_the_fields(tmp_path: Path) -> None:
    store, step = Store(tmp_path), Step("s", "slug", {"sft": {"rate": 1e-5, "batch": 8}}, {"model": "aa"})
    build(store, step)
    record = store.find(step)
    assert record is not None
    assert differences({"sft": {"rate": 3e-4, "batch": 8}}, {"model": "aa"}, record) == [
        "sft.rate: 1e-05 -> 0.0003"
    ]
    assert differences(step.spec, {"model": "bb"}, record) == ["input.model: aa -> bb"]


def test_two_builders_on_one_machine_exclude_each_other(tmp_path: Path) -> None:
    store = Store(tmp_path)
    with store.exclusive(), pytest.raises(UserError, match="another run"):
        with Store(tmp_path).exclusive():
            pass
    with store.exclusive():
        pass


def test_addresses_are_refused_as_a_store() -> None:
    with pytest.raises(UserError, match=r"^s3://bucket/store: the store must be a folder"):
        Store(Path("s3://bucket/store"))


@pytest.mark.parametrize("below", ["", "x/y"])
def test_a_file_in_the_way_of_the_store_is_refused_at_once(tmp_path: Path, below: str) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(UserError, match=r"file is a file; give a folder by --store"):
        Store(tmp_path / "file" / below)


def test_a_store_that_the_system_refuses_to_make_is_a_user_error() -> None:
    store = Store(Path("/proc/sftlab-store"))
    with pytest.raises(UserError, match=r"/proc/sftlab-store: cannot be made a folder"), store.exclusive():
        pass
    with pytest.raises(UserError, match=r"/proc/sftlab-store/s/slug-.*: cannot be made a folder"):
        store.work(Step("s", "slug", {}))


def test_a_folder_s_hash_moves_with_names_and_bytes(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("1")
    first = folder_hash(tmp_path)
    (tmp_path / "a").rename(tmp_path / "b")
    second = folder_hash(tmp_path)
    (tmp_path / "b").write_text("2")
    assert len({first, second, folder_hash(tmp_path)}) == 3
