"""Kept epochs and kept engines: what belongs to which run, and what is refused."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from sftlab.errors import UserError
from sftlab.training.live import live_key
from sftlab.training.records import (
    History,
    KeptEpoch,
    SFTRun,
    finished_result,
    missing_epochs,
    read_result,
    write_result,
)
from sftlab.training.sft import check_runs
from sftlab.training.spec import LoRASpec, MaskSpec, SFTSpec, TrainingRuntime
from tests.support.refusals import refused
from tests.support.weights_models import write_checkpoint

RUNTIME = TrainingRuntime()


@pytest.fixture
def run(tmp_path: Path) -> SFTRun:
    """Four epochs, of which the models after the first and the second are kept too."""
    base = write_checkpoint(tmp_path / "base", {"w": torch.ones(2)})
    pq.write_table(pa.table({"prompt": ["Who?"], "target": [" A"]}), tmp_path / "t.parquet")
    kept = tuple(KeptEpoch(epoch, str(tmp_path / f"out-{epoch}")) for epoch in (1, 2))
    out = str(tmp_path / "out")
    return SFTRun("r", str(base), str(tmp_path / "t.parquet"), out, SFTSpec(epochs=4), kept=kept)


def commit(run: SFTRun, kept: KeptEpoch | None = None, steps: int = 4) -> None:
    Path((kept or run).output_dir).mkdir()
    write_result(run, RUNTIME, 1, History([1.0] * steps, [1e-5] * steps), kept)


def test_a_run_is_finished_when_all_its_kept_epochs_are_committed(run: SFTRun) -> None:
    first, second = run.kept
    commit(run, first, steps=1)
    assert missing_epochs(run) == [second] and finished_result(run) is None
    commit(run)
    assert read_result(run) is not None and finished_result(run) is None
    commit(run, second, steps=2)
    result, early = finished_result(run), read_result(run, first)
    assert result is not None and early is not None
    assert (result.steps, result.output_dir) == (4, run.output_dir)
    assert (early.steps, early.output_dir) == (1, first.output_dir)


def test_the_result_of_an_epoch_is_not_that_of_another_or_of_the_run(run: SFTRun) -> None:
    first, second = run.kept
    commit(run, first)
    with refused("result of another run; epoch differ", value="r"):
        read_result(run, replace(second, output_dir=first.output_dir))
    with refused("result of another run; epoch differ", value="r"):
        read_result(replace(run, output_dir=first.output_dir))


def test_which_epochs_are_kept_is_not_part_of_a_run_s_identity(run: SFTRun) -> None:
    commit(run)
    commit(run, run.kept[1])
    fewer = replace(run, kept=run.kept[1:])
    assert finished_result(fewer) == read_result(run) is not None


@pytest.mark.parametrize("epochs", [(0,), (4,), (1, 1)])
def test_epochs_that_do_not_come_before_the_last_are_refused(run: SFTRun, epochs: tuple[int, ...]) -> None:
    kept = tuple(KeptEpoch(epoch, f"{run.output_dir}-{number}") for number, epoch in enumerate(epochs))
    with pytest.raises(UserError, match=f"after epoch {epochs[0]}; expected different epochs from 1 to 3"):
        check_runs([replace(run, kept=kept)], RUNTIME)


def test_two_epochs_with_one_folder_are_refused(run: SFTRun) -> None:
    check_runs([run], RUNTIME)
    same = replace(run, kept=(replace(run.kept[0], output_dir=run.output_dir),))
    with pytest.raises(UserError, match=f"have the output_dir '{run.output_dir}'"):
        check_runs([same], RUNTIME)


@pytest.mark.parametrize(
    ("change", "same"),
    [
        ({"learning_rate": 1e-3, "schedule": "constant", "warmup_ratio": 0.1, "epochs": 1}, True),
        ({"seed": 3, "max_length": 99}, True),
        ({"batch_size": 4}, False),
        ({"precision": "fp32"}, False),
        ({"lora": LoRASpec()}, False),
        ({"freeze_layers": "0"}, False),
        ({"weight_decay": 0.1}, False),
        ({"max_grad_norm": None}, False),
    ],
)
def test_runs_share_an_engine_where_they_differ_in_rates_epochs_or_seed(
    run: SFTRun, change: dict[str, Any], same: bool
) -> None:
    other = replace(run, run_id="s", spec=run.spec.model_copy(update=change))
    assert (live_key(other, RUNTIME) == live_key(run, RUNTIME)) is same
    assert live_key(replace(run, base_model="elsewhere"), RUNTIME) != live_key(run, RUNTIME)


def test_adapters_of_another_seed_need_a_new_engine(run: SFTRun) -> None:
    one, two = (replace(run, spec=SFTSpec(lora=LoRASpec(), seed=seed)) for seed in (0, 1))
    assert live_key(one, RUNTIME) != live_key(two, RUNTIME)


@pytest.mark.parametrize(
    "spec",
    [
        SFTSpec(l2_sp=1.0),
        SFTSpec(clip_relative=1.0),
        SFTSpec(kl_to_base=1.0),
        SFTSpec(mask=MaskSpec(percent=5, size=1)),
    ],
    ids=["l2_sp", "clip_relative", "kl_to_base", "mask"],
)
def test_what_remembers_the_base_needs_a_new_engine(run: SFTRun, spec: SFTSpec) -> None:
    assert live_key(replace(run, spec=spec), RUNTIME) is None
    assert live_key(run, TrainingRuntime(offload="optimizer", zero_stage=2)) is None
