"""The result tables: written, read, and refused."""

from __future__ import annotations

from dataclasses import fields, replace
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from sftlab.analysis.accuracy import BucketAccuracy
from sftlab.errors import UserError
from sftlab.store.rows import schema_of
from sftlab.studies.knowledge.results.rows import AccuracyRow, CellRow, accuracy_rows
from sftlab.studies.knowledge.results.tables import (
    OPTIONAL_TABLES,
    RESULT_TABLES,
    VARIANT_TABLES,
    Results,
    Variant,
)
from tests.support.report_study import paper_study


def contents(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def test_results_survive_writing_and_reading(tmp_path: Path) -> None:
    study = paper_study(buckets=(0, 2), sizes=(240,))
    study.write(tmp_path)
    found = Results.read(tmp_path)
    assert (found.kind, found.name, found.model, found.spec) == ("study", study.name, study.model, study.spec)
    for name in RESULT_TABLES:
        assert list(getattr(found, name)) == list(getattr(study, name)), name
    for name in VARIANT_TABLES:
        assert list(getattr(found.variants[0], name)) == list(getattr(study.variants[0], name)), name
    assert found.variants[0].provenance == study.variants[0].provenance
    found.write(tmp_path / "again")
    again = contents(tmp_path / "again")
    assert again and all(contents(tmp_path)[name] == data for name, data in again.items())


def test_empty_tables_keep_their_schema(tmp_path: Path) -> None:
    empty = Results("empty", "none", variants=(Variant("v", "s"),))
    empty.write(tmp_path)
    for name, kind in VARIANT_TABLES.items():
        file = tmp_path / "variants" / "0" / f"{name}.parquet"
        if name in OPTIONAL_TABLES:
            assert not file.exists(), name
        else:
            assert pq.read_schema(file).equals(schema_of(kind)), name
    assert Results.read(tmp_path) == empty


def test_every_table_is_a_field_of_the_results() -> None:
    assert set(VARIANT_TABLES) < {field.name for field in fields(Variant)}
    assert set(RESULT_TABLES) < {field.name for field in fields(Results)}
    assert schema_of(AccuracyRow).field("percent").nullable
    assert not schema_of(AccuracyRow).field("split").nullable


def test_nothing_is_recommended_without_choices() -> None:
    assert Results("empty", "none").recommended() is None


def test_the_recommended_model_is_that_of_the_lowest_seed() -> None:
    study = paper_study(buckets=(2,), sizes=(240,), seeds=(3, 1))
    found = study.recommended()
    assert found is not None and (found.choice.seeds, found.cell.set_seed) == (2, 1)
    assert found.model == ("restore", "bucket2-n240-s1", found.choice.percent)


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


@pytest.mark.parametrize("name", ["results.json", "groups.parquet", "variants/0/accuracy.parquet"])
def test_missing_or_damaged_files_are_named(tmp_path: Path, name: str) -> None:
    Results("study", "model", variants=(Variant("v", "s"),)).write(tmp_path)
    (tmp_path / name).write_bytes(b"PAR1 broken")
    with pytest.raises(UserError, match=name):
        Results.read(tmp_path)
    (tmp_path / name).unlink()
    with pytest.raises(UserError, match=name):
        Results.read(tmp_path)


def test_table_with_other_columns_is_refused(tmp_path: Path) -> None:
    Results("study", "model").write(tmp_path)
    (tmp_path / "groups.parquet").write_bytes((tmp_path / "choice.parquet").read_bytes())
    with pytest.raises(UserError, match=r"groups.parquet: has the columns"):
        Results.read(tmp_path)


def test_spec_that_is_not_json_is_not_written(tmp_path: Path) -> None:
    with pytest.raises(ValueError):
        replace(Results("study", "model"), spec={"rate": float("nan")}).write(tmp_path)
