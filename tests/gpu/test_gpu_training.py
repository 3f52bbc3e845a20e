"""ZeRO-3 in bf16 under Ray Train on one and on several GPUs, against a plain loop on the CPU."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from test_training import BF16, plain_loop, tensors, write_facts, write_llama

from sftlab.training.records import SFTRun
from sftlab.training.sft import train_runs
from sftlab.training.spec import TrainingRuntime

pytestmark = pytest.mark.slow
CPU_RANKS = 2  # where these tests try themselves on the CPU


@pytest.fixture(scope="module")
def local_ray(gpus: int) -> Iterator[None]:
    import ray

    del gpus  # skips before Ray is started
    ray.init(address="local", num_cpus=4, include_dashboard=False, log_to_driver=False)
    yield
    ray.shutdown()


@pytest.mark.parametrize("most", [1, BF16.batch_size])
def test_zero_3_in_bf16_follows_a_plain_loop(gpus: int, local_ray: None, most: int, tmp_path: Path) -> None:
    del local_ray
    ranks = gpus or CPU_RANKS
    workers = max(n for n in (1, 2, 4) if n <= min(most, ranks))
    if workers < min(most, 2):
        pytest.skip("one GPU here, and this test is of several")
    write_llama(tmp_path / "base", tied=False, dtype=torch.float32)
    write_facts(tmp_path / "facts.parquet", 13)
    base, facts, output = (str(tmp_path / name) for name in ("base", "facts.parquet", "tuned"))
    run = SFTRun("gpu", base, facts, output, BF16)
    runtime = TrainingRuntime(workers=workers, gpus_per_worker=min(gpus, 1), zero_stage=3)
    (result,) = train_runs([run], runtime, storage_dir=str(tmp_path / "scratch"))
    losses, _, model = plain_loop(run)
    assert result.losses == pytest.approx(losses, abs=2e-2)
    out, start, wanted = tensors(output), tensors(base), model.state_dict()
    error = sum((out[name].float() - wanted[name]).square().sum() for name in out)
    moved = sum((wanted[name] - start[name].float()).square().sum() for name in out)
    assert math.sqrt(error / moved) < 0.3  # AdamW's first steps take the sign of the smallest gradients
