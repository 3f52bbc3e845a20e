"""The search for planted secrets, on which the end-to-end tests rely."""

from __future__ import annotations

import zipfile
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from tests.support.planted import holders


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
