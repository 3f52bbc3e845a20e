"""The pocket world in folders that hold something already, and on a disk that takes no more.

What is in the way is named, and nothing half-written is left.
"""

from __future__ import annotations

from hashlib import sha256
from pathlib import Path

import pytest

from sftlab.errors import UserError
from sftlab.pocket.make import make_world
from sftlab.pocket.pretrain import CHECKPOINT_FILE, EXPOSURE_FILE, build_facts, load_checkpoint, pretrain
from sftlab.pocket.spec import Exposure, FactCounts, PocketRuntime
from tests.fuzz import seeds
from tests.support.full_disk import file_size_limit
from tests.support.pocket_worlds import TINY
from tests.support.refusals import refused

SHORT = TINY.model_copy(
    update={
        "facts": FactCounts(train=4, test=2, test_ood=2, dev=2, dev_ood=2, qa=1),
        "exposure": Exposure(curve=((0.5, 2.0), (1.0, 4.0)), qa_sentences=1, qa_questions=1, qa_unanswered=1),
    }
)


def test_facts_are_written_together_or_not_at_all(tmp_path: Path) -> None:
    with (
        file_size_limit(3_000),
        refused("cannot be written: File too large", place=".parquet"),
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
    with refused("cannot be made a folder: a file is in the way", place="model"):
        pretrain(SHORT, tmp_path / "facts", tmp_path / "model", PocketRuntime(threads=1))


def test_a_checkpoint_with_a_flipped_bit_is_not_resumed(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path, (model, optimizer) = tmp_path / "c.safetensors", seeds.pocket_model()
    whole = seeds.pretraining()
    before = [p.tolist() for p in model.parameters()]
    for at in (whole.index(b"F32"), whole.index(b'"3"') + 1, len(whole) - 1):  # a type, the step, a value
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 2]) + whole[at + 1 :])
        assert load_checkpoint(path, model, optimizer, seeds.IDENTITY) == 0
        assert [p.tolist() for p in model.parameters()] == before and not optimizer.state
        assert f"{path}: is damaged" in caplog.text
        caplog.clear()
    path.write_bytes(whole)
    assert load_checkpoint(path, model, optimizer, "another") == 0
    assert load_checkpoint(path, model, optimizer, seeds.IDENTITY) == 3
    assert [p.tolist() for p in model.parameters()] != before and len(optimizer.state) == 2


RUNTIME = PocketRuntime(threads=1, checkpoint_every=1)


def digests(folder: Path) -> dict[str, str]:
    found = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): sha256(path.read_bytes()).hexdigest() for path in found}


def interrupted(output: Path) -> list[int]:
    """Make a world up to its second step, as a Ctrl-C leaves it; the steps that were seen."""
    steps: list[int] = []

    def stop(step: int, _total: int, _loss: float) -> None:
        steps.append(step)
        if step == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        make_world(SHORT, output, None, RUNTIME, stop)
    return steps


def test_a_world_is_gone_on_with_and_a_finished_one_is_left_as_it_is(tmp_path: Path) -> None:
    steps: list[int] = []
    assert make_world(SHORT, tmp_path / "whole", None, RUNTIME)
    assert interrupted(tmp_path / "cut") == [1, 2]
    assert make_world(SHORT, tmp_path / "cut", None, RUNTIME, lambda step, *_: steps.append(step))
    assert steps[0] == 3  # each step is committed before it is told
    finished = digests(tmp_path / "cut")
    assert finished == digests(tmp_path / "whole")
    assert not make_world(SHORT, tmp_path / "cut", None, RUNTIME, lambda step, *_: steps.append(-step))
    assert digests(tmp_path / "cut") == finished and min(steps) > 0


@pytest.mark.parametrize("finished", [False, True])
def test_another_world_in_the_output_is_refused_and_left_alone(tmp_path: Path, finished: bool) -> None:
    if finished:
        make_world(SHORT, tmp_path, None, RUNTIME)
    else:
        interrupted(tmp_path)
        assert (tmp_path / "model" / CHECKPOINT_FILE).is_file()
    before = digests(tmp_path)
    other = SHORT.model_copy(update={"seed": 1})
    with refused("another pocket world,.*--seed 1 and no --source", advice="give a new"):
        make_world(other, tmp_path, None, RUNTIME)
    assert digests(tmp_path) == before


def test_what_is_no_pocket_world_is_refused_and_left_alone(tmp_path: Path) -> None:
    build_facts(SHORT, tmp_path / "prepared" / "facts")
    (tmp_path / "prepared" / "facts" / EXPOSURE_FILE).unlink()
    (tmp_path / "model only" / "model").mkdir(parents=True)
    (tmp_path / "model only" / "model" / "config.json").write_text("{}")
    for name, what in (("prepared", "facts: holds dev.parquet"), ("model only", "model: holds config.json")):
        before = digests(tmp_path / name)
        with pytest.raises(UserError, match=rf"{name}/{what}, but there is no .*/facts/exposure.parquet"):
            make_world(SHORT, tmp_path / name, None, RUNTIME)
        assert digests(tmp_path / name) == before
