"""Who builds in a store: notes of live processes, claims that are refreshed, and nothing of the dead."""

from __future__ import annotations

import json
import os
from pathlib import Path

from sftlab.store.artifact import Store
from sftlab.store.leases import claim_name
from tests.unit.store.test_leases import Memory, process


def notes(folder: Path) -> list[Path]:
    return sorted((folder / "locks").glob("building-*"))


def test_sweeps_that_share_a_store_are_all_reported(tmp_path: Path) -> None:
    store = Store(tmp_path)
    with store.shared(), store.shared():
        assert [(one.process, one.shared) for one in store.holders()] == [(os.getpid(), True)] * 2
        assert len(notes(tmp_path)) == 2
    assert store.holders() == [] and notes(tmp_path) == []


def test_a_note_of_a_killed_process_is_not_reported_and_is_deleted_by_the_next_builder(
    tmp_path: Path,
) -> None:
    store = Store(tmp_path)
    note = tmp_path / "locks" / "building-0.json"
    note.parent.mkdir()
    note.write_text(json.dumps({"host": "x", "process": 1, "since": "2026-01-01T00:00:00Z", "shared": False}))
    assert store.holders() == [] and note.exists()
    with store.exclusive():
        assert not note.exists()


def test_asking_who_builds_makes_no_store(tmp_path: Path) -> None:
    assert Store(tmp_path / "new").holders() == []
    assert not (tmp_path / "new").exists()


def test_of_an_object_store_only_refreshed_claims_are_reported() -> None:
    claims = Memory()
    claims.write(f"store/{claim_name(False, 0, 'killed')}")
    builder, reader = process(claims), process(claims)
    with builder.hold("other"):
        assert reader.refreshed("store") == []
        (name,) = reader.refreshed("other")
        assert builder.refreshed("other") == [name]
        assert len(claims.found) == 2  # nothing is deleted
