"""Secrets of the environment and of addresses stand in no file that a study leaves and in nothing that it prints.

`test_jobs.py` looks for them after a submitted job, `tests/ray/test_tracking_server.py` on an MLflow server.
"""

from __future__ import annotations

import zipfile
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.e2e.conftest import Study
from tests.support.planted import SECRETS, holders

pytestmark = pytest.mark.slow


def test_no_secret_stands_in_the_store_in_mlflow_or_in_any_log(finished: Study) -> None:
    place = finished.store.parent
    assert (finished.store / "mlflow.db").is_file() and (place / "run.log").stat().st_size
    assert finished.ray is not None and any(finished.ray.rglob("logs/*")), "Ray's logs are looked through too"
    assert holders(place, SECRETS) == []
    assert holders(finished.ray, SECRETS) == []


def test_the_search_finds_what_is_there(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "x.bin").write_bytes(b"\x00\x01" + "planted".encode("utf-16-le"))
    (tmp_path / "y.log").write_text("password=planted")
    with zipfile.ZipFile(tmp_path / "package.zip", "w", zipfile.ZIP_DEFLATED) as package:
        package.writestr("x.env", "planted " * 100)
    table = pa.table({"a": ["x", "planted" * 100]})
    pq.write_table(table, tmp_path / "t.parquet", compression="gzip", write_statistics=False)
    pq.write_table(pa.table({"a": ["x"]}), tmp_path / "sound.parquet")
    assert holders(tmp_path, ["planted"]) == ["a/x.bin", "package.zip", "t.parquet", "y.log"]
    assert b"planted" not in (tmp_path / "t.parquet").read_bytes() + (tmp_path / "package.zip").read_bytes()
