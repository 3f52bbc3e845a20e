"""The files outside the store: which stages read them, and what is said of those that are missing."""

from __future__ import annotations

from pathlib import Path

import pytest

from sftlab.errors import UserError
from sftlab.execution.outside import OutsideFiles
from sftlab.execution.stage import Stage, files_by_stage
from sftlab.store.hashes import FileHashes
from sftlab.store.outside import hashed_outside
from tests.support.refusals import refused


def test_a_stage_reads_the_files_of_its_groups() -> None:
    stages = (Stage("a", 1, "x:y"), Stage("b", 1, "x:y", reads=("model", "data")))
    groups = {"model": ["missing:m"], "data": ["missing:d"], "unread": ["missing:u"]}
    assert files_by_stage(stages, groups) == {"b": ("missing:m", "missing:d")}


def test_a_missing_file_is_named_once_with_its_hint() -> None:
    files = OutsideFiles({"a": ["missing:in/world.zip"], "b": ["missing:in/world.zip"]}, {"world": "make it"})
    assert files.missing() == ["in/world.zip"]
    with refused("not found; make it", place="in/world.zip", advice="correct the path"):
        files.require()
    OutsideFiles().require()


def test_a_changed_file_is_refused_for_the_stages_that_read_it(tmp_path: Path) -> None:
    file = tmp_path / "in.txt"
    file.write_text("before")
    files = OutsideFiles({"a": [hashed_outside(file, lambda path: [path], FileHashes(tmp_path / "h"))]})
    files.require_unchanged("a")
    file.write_text("after, longer")
    files.require_unchanged("b")
    with pytest.raises(UserError, match=r"in\.txt: has changed.*stage a"):
        files.require_unchanged("a")
