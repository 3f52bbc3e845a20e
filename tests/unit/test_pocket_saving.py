"""The pocket world on a disk that takes no more: the file is named, and nothing half-written is left."""

from __future__ import annotations

from pathlib import Path

import pytest
from full_disk import file_size_limit

from sftlab.errors import UserError
from sftlab.pocket.pretrain import _load_checkpoint, build_facts, pretrain
from sftlab.pocket.spec import Exposure, FactCounts, PocketRuntime
from tests.fuzz import seeds
from tests.pocket_worlds import TINY

SHORT = TINY.model_copy(
    update={
        "facts": FactCounts(train=4, test=2, test_ood=2, dev=2, dev_ood=2, qa=1),
        "exposure": Exposure(curve=((0.5, 2.0), (1.0, 4.0)), qa_sentences=1, qa_questions=1, qa_unanswered=1),
    }
)


def test_facts_are_written_together_or_not_at_all(tmp_path: Path) -> None:
    with (
        file_size_limit(3_000),
        pytest.raises(UserError, match=r"\.parquet: cannot be written: File too large"),
    ):
        build_facts(SHORT, tmp_path / "facts")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("size", "every", "named"),
    [
        (20_000, 1_000, "model"),  # the tokenizer
        (200_000, 1_000, "model/model.safetensors"),
        (200_000, 1, "model/pretraining.safetensors"),
    ],
)
def test_a_full_disk_is_a_user_error_that_names_what_was_being_written(
    tmp_path: Path, size: int, every: int, named: str
) -> None:
    build_facts(SHORT, tmp_path / "facts")
    runtime = PocketRuntime(threads=1, checkpoint_every=every)
    message = rf"{tmp_path}/{named}: cannot be written: File too large; free some space"
    with file_size_limit(size), pytest.raises(UserError, match=message):
        pretrain(SHORT, tmp_path / "facts", tmp_path / "model", runtime)
    left = [path.name for path in (tmp_path / "model").iterdir()]
    assert not any(name.endswith((".safetensors", ".part")) for name in left)


def test_a_file_in_the_way_of_the_model_is_named(tmp_path: Path) -> None:
    build_facts(SHORT, tmp_path / "facts")
    (tmp_path / "model").write_text("x")
    with pytest.raises(UserError, match=r"model: cannot be made a folder: a file is in the way"):
        pretrain(SHORT, tmp_path / "facts", tmp_path / "model", PocketRuntime(threads=1))


def test_a_checkpoint_with_a_flipped_bit_is_not_resumed(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path, (model, optimizer) = tmp_path / "c.safetensors", seeds.pocket_model()
    whole = seeds.pretraining()
    before = [p.tolist() for p in model.parameters()]
    for at in (whole.index(b"F32"), whole.index(b'"3"') + 1, len(whole) - 1):  # a type, the step, a value
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 2]) + whole[at + 1 :])
        assert _load_checkpoint(path, model, optimizer, seeds.IDENTITY) == 0
        assert [p.tolist() for p in model.parameters()] == before and not optimizer.state
        assert f"{path}: is damaged" in caplog.text
        caplog.clear()
    path.write_bytes(whole)
    assert _load_checkpoint(path, model, optimizer, "another") == 0
    assert _load_checkpoint(path, model, optimizer, seeds.IDENTITY) == 3
    assert [p.tolist() for p in model.parameters()] != before and len(optimizer.state) == 2
