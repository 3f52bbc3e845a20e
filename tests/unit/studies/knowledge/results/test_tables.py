"""The result tables: written, read, and refused."""

from __future__ import annotations

from dataclasses import fields, replace
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from sftlab.analysis.accuracy import BucketAccuracy
from sftlab.errors import UserError
from sftlab.studies.knowledge.results.tables import TABLES, CellRow, StudyResults, accuracy_rows, schema
from tests.support.report_study import paper_study


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def test_results_survive_writing_and_reading(tmp_path: Path) -> None:
    study = paper_study(paired=True)
    study.write(tmp_path)
    found = StudyResults.read(tmp_path)
    assert (found.name, found.model, found.spec, found.provenance) == (
        study.name,
        study.model,
        study.spec,
        study.provenance,
    )
    for name in TABLES:
        assert list(getattr(found, name)) == list(getattr(study, name)), name


def test_same_results_give_the_same_bytes(tmp_path: Path) -> None:
    for name in ("first", "second"):
        paper_study().write(tmp_path / name)
    assert contents(tmp_path / "first") == contents(tmp_path / "second")
    StudyResults.read(tmp_path / "first").write(tmp_path / "third")
    assert contents(tmp_path / "first") == contents(tmp_path / "third")


def test_empty_tables_keep_their_schema(tmp_path: Path) -> None:
    StudyResults("empty", "none").write(tmp_path)
    for name in TABLES:
        assert pq.read_schema(tmp_path / f"{name}.parquet").equals(schema(name)), name
    assert StudyResults.read(tmp_path) == StudyResults("empty", "none")


def test_every_table_is_a_field_of_the_results() -> None:
    assert set(TABLES) < {field.name for field in fields(StudyResults)}
    assert schema("accuracy").field("percent").nullable
    assert not schema("accuracy").field("split").nullable


def test_accuracy_rows_leave_empty_buckets_out_and_count_them_in_the_mean() -> None:
    cell = CellRow("bucket2-n24-s0", "2", 24, 0)
    rows = accuracy_rows(cell, 10.0, "test", [BucketAccuracy(b, 4 * (b > 2), int(b > 2)) for b in range(5)])
    assert [(r.bucket, r.questions, r.correct, r.accuracy, r.empty_buckets) for r in rows] == [
        (3, 4, 1, 0.25, 0),
        (4, 4, 1, 0.25, 0),
        (None, 8, 2, 0.25, 3),
    ]
    assert {(r.cell, r.train_bucket, r.size, r.percent, r.split) for r in rows} == {
        ("bucket2-n24-s0", "2", 24, 10.0, "test")
    }


def test_base_model_rows_have_no_training_set_and_no_percentage() -> None:
    (row, mean) = accuracy_rows(None, None, "dev", [BucketAccuracy(0, 2, 1)])
    assert (row.cell, row.train_bucket, row.size, row.set_seed, row.percent) == (
        "base",
        None,
        None,
        None,
        None,
    )
    assert mean.bucket is None


@pytest.mark.parametrize("name", ["study.json", "accuracy.parquet"])
def test_missing_file_is_named(tmp_path: Path, name: str) -> None:
    StudyResults("study", "model").write(tmp_path)
    (tmp_path / name).unlink()
    with pytest.raises(UserError, match=name):
        StudyResults.read(tmp_path)


@pytest.mark.parametrize("name", ["study.json", "accuracy.parquet"])
def test_damaged_file_is_named(tmp_path: Path, name: str) -> None:
    StudyResults("study", "model").write(tmp_path)
    (tmp_path / name).write_bytes(b"PAR1 broken")
    with pytest.raises(UserError, match=name):
        StudyResults.read(tmp_path)


def test_table_with_other_columns_is_refused(tmp_path: Path) -> None:
    StudyResults("study", "model").write(tmp_path)
    (tmp_path / "mastery.parquet").write_bytes((tmp_path / "choice.parquet").read_bytes())
    with pytest.raises(UserError, match=r"mastery.parquet: has the columns"):
        StudyResults.read(tmp_path)


def test_spec_that_is_not_json_is_not_written(tmp_path: Path) -> None:
    with pytest.raises(ValueError):
        replace(StudyResults("study", "model"), spec={"rate": float("nan")}).write(tmp_path)
