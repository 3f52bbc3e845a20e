"""The study's defaults, the DeepSpeed configuration, and what is refused before anything starts."""

from __future__ import annotations

import errno
import json
import os
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from sftlab.cluster.out_of_memory import is_out_of_memory
from sftlab.errors import UserError
from sftlab.training.deepspeed import deepspeed_config
from sftlab.training.failures import Superseded, TrainingError, disk_errors, out_of_memory, verdict
from sftlab.training.group import SILENCE_ENV, interface_of, make_trainer
from sftlab.training.records import (
    DivergedError,
    History,
    SFTRun,
    read_result,
    run_layout,
    write_result,
)
from sftlab.training.sft import Mailbox, check_runs
from sftlab.training.spec import SFTSpec, TrainingRuntime, accumulation_steps
from tests.support.full_disk import file_size_limit
from tests.support.refusals import refused
from tests.support.weights_models import write_checkpoint


def test_the_defaults_are_the_settings_of_the_study() -> None:
    spec = SFTSpec()
    assert (spec.batch_size, spec.epochs, spec.learning_rate, spec.schedule) == (8, 1, 1e-5, "cosine")
    assert spec.lora is None


@pytest.mark.parametrize(
    ("workers", "micro", "expected"),
    [(1, None, (8, 1)), (2, None, (4, 1)), (2, 1, (1, 4)), (4, 2, (2, 1)), (8, 1, (1, 1))],
)
def test_accumulation_is_what_is_left_of_the_batch(
    workers: int, micro: int | None, expected: tuple[int, int]
) -> None:
    assert accumulation_steps(SFTSpec(), TrainingRuntime(workers=workers, micro_batch_size=micro)) == expected


def test_workers_that_do_not_divide_the_batch_are_refused_with_those_that_would() -> None:
    with refused("does not divide .* = 8", place="training.workers", value=3, expected="1, 2, 4, 8"):
        accumulation_steps(SFTSpec(), TrainingRuntime(workers=3))


def test_a_micro_batch_that_does_not_divide_the_share_is_refused_with_those_that_would() -> None:
    with refused("share of 4", place="training.micro_batch_size", value=3, expected="1, 2, 4"):
        accumulation_steps(SFTSpec(), TrainingRuntime(workers=2, micro_batch_size=3))


def test_deepspeed_config_states_the_batch_in_all_three_ways() -> None:
    config = deepspeed_config(SFTSpec(), TrainingRuntime(workers=2, micro_batch_size=2, zero_stage=2))
    assert config["train_batch_size"] == 8
    assert config["train_micro_batch_size_per_gpu"] == 2
    assert config["gradient_accumulation_steps"] == 2
    assert config["zero_optimization"]["stage"] == 2
    assert config["bf16"] == {"enabled": True}
    assert config["data_types"] == {"grad_accum_dtype": "fp32"}


def test_deepspeed_config_without_bf16_clipping_or_offload_has_none_of_them() -> None:
    config = deepspeed_config(SFTSpec(precision="fp32", max_grad_norm=None), TrainingRuntime())
    assert "bf16" not in config
    assert config["gradient_clipping"] == 0.0
    assert "offload_optimizer" not in config["zero_optimization"]


def test_offload_is_passed_on_and_refused_where_the_stage_has_none() -> None:
    config = deepspeed_config(SFTSpec(), TrainingRuntime(zero_stage=3, offload="parameters"))
    assert config["zero_optimization"]["offload_param"] == {"device": "cpu"}
    assert config["zero_optimization"]["offload_optimizer"] == {"device": "cpu"}
    with refused(r"needs training\.zero_stage = 3, not 2", value="parameters"):
        deepspeed_config(SFTSpec(), TrainingRuntime(zero_stage=2, offload="parameters"))
    with refused("zero_stage 1, 2 or 3, not 0", value="optimizer"):
        deepspeed_config(SFTSpec(), TrainingRuntime(offload="optimizer"))


def test_checkpoint_times_and_restarts_do_not_belong_to_the_layout_of_a_checkpoint() -> None:
    one = run_layout(TrainingRuntime(checkpoint_every_steps=5, max_failures=1))
    assert one == run_layout(TrainingRuntime())
    assert one != run_layout(TrainingRuntime(workers=2))


@pytest.fixture
def run(tmp_path: Path) -> SFTRun:
    base = write_checkpoint(tmp_path / "base", {"w": torch.ones(2)})
    examples = pa.table({"prompt": ["Who?", "Where?"], "target": ["A", "B"]})
    pq.write_table(examples, tmp_path / "t.parquet")
    return SFTRun("r", str(base), str(tmp_path / "t.parquet"), str(tmp_path / "out"), SFTSpec())


def test_a_good_run_passes_the_checks(run: SFTRun) -> None:
    check_runs([run], TrainingRuntime())


def test_two_runs_with_one_output_folder_are_refused(run: SFTRun) -> None:
    other = SFTRun("s", run.base_model, run.train_file, run.output_dir, run.spec)
    with pytest.raises(UserError, match="have the output_dir"):
        check_runs([run, other], TrainingRuntime())


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ({"prompt": ["Q"]}, "t.parquet: .*lacks the column target"),
        ({"prompt": ["Q", " "], "target": ["A", "B"]}, "t.parquet: row 1: the prompt is empty: ' '"),
        ({"prompt": ["Q", "R"], "target": ["A", None]}, "t.parquet: row 1: the target is empty: None"),
        ({"prompt": ["Q"], "target": [3]}, "the column target is of type int64, expected string"),
        ({"prompt": pa.array([], pa.string()), "target": pa.array([], pa.string())}, "has no rows"),
    ],
)
def test_a_bad_training_set_is_named_by_file_and_row(
    run: SFTRun, table: dict[str, object], message: str
) -> None:
    pq.write_table(pa.table(table), run.train_file)
    with pytest.raises(UserError, match=message):
        check_runs([run], TrainingRuntime())


def test_a_missing_or_foreign_training_file_is_refused(run: SFTRun) -> None:
    Path(run.train_file).write_text("no parquet")
    with refused("is not a readable table", place="t.parquet"):
        check_runs([run], TrainingRuntime())
    Path(run.train_file).unlink()
    with pytest.raises(UserError, match="not found"):
        check_runs([run], TrainingRuntime())


def test_a_pickle_checkpoint_is_refused(run: SFTRun) -> None:
    weights = Path(run.base_model) / "model.safetensors"
    weights.rename(weights.with_name("pytorch_model.bin"))
    with pytest.raises(UserError, match="holds only pickle weights"):
        check_runs([run], TrainingRuntime())


def test_a_missing_shard_is_told_by_name(run: SFTRun) -> None:
    index = {"weight_map": {"a": "model-00001-of-00002.safetensors"}}
    (Path(run.base_model) / "model.safetensors").unlink()
    (Path(run.base_model) / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(UserError, match=r"model-00001-of-00002\.safetensors: missing, but"):
        check_runs([run], TrainingRuntime())


@pytest.mark.parametrize("text", ["{}", "[]", "no JSON"])
def test_a_bad_index_is_told(run: SFTRun, text: str) -> None:
    (Path(run.base_model) / "model.safetensors").unlink()
    (Path(run.base_model) / "model.safetensors.index.json").write_text(text)
    with pytest.raises(UserError, match=r"model\.safetensors\.index\.json: "):
        check_runs([run], TrainingRuntime())


@pytest.mark.parametrize(
    ("error", "kind", "message"),
    [
        (
            DivergedError("the loss is nan", advice="lower sft.learning_rate"),
            DivergedError,
            "the loss is nan",
        ),
        (UserError("wrong"), UserError, "wrong"),
        (Superseded("r"), TrainingError, "taken it over"),
        (MemoryError(), UserError, "ran out of memory"),
        (OSError(errno.ENOSPC, "No space left on device"), UserError, "the disk is full"),
        (OSError(errno.EROFS, "Read-only file system"), UserError, "make it writable on every node"),
    ],
)
def test_failures_that_a_restart_would_repeat_are_the_user_s_where_they_can_mend_them(
    error: Exception, kind: type[UserError], message: str
) -> None:
    found = verdict(error, TrainingRuntime(), 0)
    assert type(found) is kind and message in str(found)


def test_other_failures_are_left_to_a_restart() -> None:
    assert verdict(RuntimeError("connection lost"), TrainingRuntime(), 0) is None
    assert verdict(OSError(errno.EIO, "I/O error"), TrainingRuntime(), 0) is None


def test_a_full_disk_is_told_where_torch_says_nothing_of_it(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="File too large"), file_size_limit(2**16), disk_errors(tmp_path):
        torch.save(torch.zeros(2**16), tmp_path / "states.pt")
    assert [path.name for path in tmp_path.iterdir()] == ["states.pt"]
    with pytest.raises(RuntimeError, match="connection lost"), disk_errors(tmp_path):
        raise RuntimeError("connection lost")


def test_the_interface_of_an_address_is_found() -> None:
    assert interface_of("127.0.0.1") == interface_of("127.0.0.3") == "lo"
    assert interface_of("192.0.2.254") is None


def test_ranks_wait_for_a_silent_one_as_long_as_the_runtime_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(SILENCE_ENV, "600")  # put back afterwards
    trainer = make_trainer(lambda _: None, {}, TrainingRuntime(timeout_seconds=12.5), str(tmp_path))
    assert trainer.backend_config.timeout_s == 13
    assert os.environ[SILENCE_ENV] == "12.5"
    from ray.train.v2._internal.constants import WORKER_HEALTH_CHECK_TIMEOUT_S_ENV_VAR

    assert SILENCE_ENV == WORKER_HEALTH_CHECK_TIMEOUT_S_ENV_VAR


def test_the_base_folder_is_never_written_to(run: SFTRun) -> None:
    same = SFTRun("r", run.base_model, run.train_file, run.base_model, run.spec)
    with refused("is the folder of a base model", place="output_dir", value=run.base_model):
        check_runs([same], TrainingRuntime())


def test_a_committed_result_is_read_back_and_another_runs_result_is_refused(run: SFTRun) -> None:
    assert read_result(run) is None
    Path(run.output_dir).mkdir()
    history = History([2.0, 1.0], [1e-5, 5e-6], tokens=40, answer_tokens=6, seconds=2.0)
    write_result(run, TrainingRuntime(), 2, history)
    result = read_result(run)
    assert result is not None
    assert (result.steps, result.losses, result.tokens_per_second) == (2, [2.0, 1.0], 20.0)
    changed = SFTRun("r", run.base_model, run.train_file, run.output_dir, SFTSpec(seed=1))
    with refused("result of another run; spec differ", value="r"):
        read_result(changed)


def test_the_mailbox_hands_out_events_once_and_keeps_the_first_outcome() -> None:
    box = Mailbox()
    assert box.put(None) is False
    box.ask_to_stop()
    assert box.put(None) is True
    assert box.drain() == []
    first = UserError("first")
    box.settle(first)
    box.settle(TrainingError("second"))
    assert box.outcome() is first


def test_too_little_memory_is_recognised_and_explained() -> None:
    with pytest.raises(RuntimeError) as caught:
        torch.empty(2**58)
    assert is_out_of_memory(caught.value)
    for text in ("CUDA error: out of memory", "CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling"):
        assert is_out_of_memory(RuntimeError(text))
    assert not is_out_of_memory(RuntimeError("something else"))
    assert not is_out_of_memory(ValueError("out of memory"))
    message = out_of_memory(TrainingRuntime(micro_batch_size=4, zero_stage=1), "rank 0").advice
    for field in ("micro_batch_size (now 4)", "zero_stage (now 1)", "gradient_checkpointing=true"):
        assert field in message
