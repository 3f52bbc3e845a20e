"""What stands in a record or in MLflow's answer cannot lead out of the store."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from sftlab.errors import UserError
from sftlab.store.artifact import Store
from sftlab.store.record import read_record
from sftlab.studies.knowledge import materialize

RECORD: dict[str, Any] = {
    "id": "0" * 64,
    "stage": "facts",
    "slug": "s",
    "spec": {},
    "inputs": {},
    "revision": 1,
    "files": {"train.parquet": {"bytes": 3, "sha256": "2" * 64}},
    "provenance": {},
}
ENTRY = RECORD["files"]["train.parquet"]


@pytest.mark.parametrize(
    "change",
    [
        {"slug": "../../elsewhere"},
        {"slug": ".."},
        {"stage": "a/b"},
        {"files": {"../../../.ssh/authorized_keys": ENTRY}},
        {"files": {"/etc/passwd": ENTRY}},
        {"files": {"a/../../b": ENTRY}},
        {"files": {"a\0b": ENTRY}},
        {"files": {"a" * 5000: ENTRY}},
        {"files": {"a": {"bytes": -1, "sha256": "2" * 64}}},
    ],
)
def test_a_record_that_names_what_lies_elsewhere_is_damaged(tmp_path: Path, change: dict[str, Any]) -> None:
    file = tmp_path / "record.json"
    file.write_text(json.dumps(RECORD))
    assert read_record(file) is not None
    file.write_text(json.dumps(RECORD | change))
    with pytest.raises(UserError, match="damaged"):
        read_record(file)


@pytest.mark.parametrize("tag", ["../../../etc", "*", "", "0" * 7, "[0-9]" * 8])
def test_an_id_that_mlflow_answers_is_looked_at_before_it_is_looked_up(
    tmp_path: Path, tag: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(materialize, "artifact_of", lambda *_: tag)
    with pytest.raises(UserError, match="is no id"):
        materialize.find_recipe(Store(tmp_path), "models:/x@champion")
