"""What a killed run leaves half-written is no part of a result, whatever wrote it."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pytest

from sftlab.inference import pieces as blocks
from sftlab.pocket import pretrain
from sftlab.store.local import payload
from sftlab.weights.writer import ShardWriter


def test_the_drafts_of_a_kill_are_not_recorded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each writer is stopped between its last byte and the rename, as SIGKILL stops it: nothing is cleaned up."""
    import torch

    (tmp_path / "answers.parquet").write_bytes(b"whole")
    whole = payload(tmp_path)

    class Killed(BaseException):
        """Stands in for SIGKILL."""

    def die(*_: object) -> None:
        raise Killed

    monkeypatch.setattr(Path, "replace", die)
    monkeypatch.setattr(Path, "unlink", lambda *_, **__: None)
    with pytest.raises(Killed):
        blocks.commit_table(pa.table({"a": [1]}), tmp_path / "answers.parquet")
    with pytest.raises(Killed):
        pretrain.save_tensors({"a": torch.zeros(2)}, tmp_path / "pretraining.safetensors", {})
    ShardWriter(tmp_path / "restored-10", {})  # never committed, nor discarded
    assert len(list(tmp_path.rglob("*"))) > 3
    assert payload(tmp_path) == whole
