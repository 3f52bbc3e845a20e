"""The comparison of two stores reads the payloads themselves, and not what their records tell."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.chaos.outcome import ChaosError, compare


def write_store(root: Path, seconds: float, accuracy: int = 3, loss: float = 0.5) -> Path:
    folder = root / "results" / "study-0123456789ab"
    folder.mkdir(parents=True)
    (folder / "model.safetensors").write_bytes(b"weights")
    cells = {"cell": ["a"], "size": [accuracy], "tokens_per_second": [1 / seconds], "seconds": [seconds]}
    pq.write_table(pa.table(cells), folder / "cells.parquet")
    identity = {"run_id": "a", "base_model": str(root / "model"), "train_sha256": "0"}
    result = {"losses": [loss], "tokens_per_second": 1 / seconds, "seconds": seconds}
    training = {"identity": identity, "runtime": {"threads": seconds}, "result": result}
    (folder / "training.json").write_text(json.dumps(training))
    names = ["model.safetensors", "cells.parquet", "training.json"]
    record = {"files": {name: {"bytes": 7, "sha256": "0" * 64} for name in names}}
    (folder / "record.json").write_text(json.dumps(record))
    return root


def test_measured_times_alone_may_differ(tmp_path: Path) -> None:
    calm, storm = write_store(tmp_path / "calm", 1.0), write_store(tmp_path / "storm", 2.0)
    assert compare(storm, calm) == 3
    other = write_store(tmp_path / "other", 2.0, accuracy=4)
    with pytest.raises(ChaosError, match=r"1 of 3 files differ .*cells\.parquet"):
        compare(other, calm)
    worse = write_store(tmp_path / "worse", 2.0, loss=0.5000001)
    with pytest.raises(ChaosError, match=r"1 of 3 files differ .*training\.json"):
        compare(worse, calm)


def test_other_bytes_under_the_same_record_and_missing_files_are_found(tmp_path: Path) -> None:
    calm, storm = write_store(tmp_path / "calm", 1.0), write_store(tmp_path / "storm", 1.0)
    weights = storm / "results" / "study-0123456789ab" / "model.safetensors"
    weights.write_bytes(b"weighty")
    with pytest.raises(ChaosError, match=r"model\.safetensors"):
        compare(storm, calm)
    weights.unlink()
    with pytest.raises(ChaosError, match=r"model\.safetensors"):
        compare(storm, calm)
