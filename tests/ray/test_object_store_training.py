"""A run whose checkpoints lie in an object store: begun on one machine, finished on another, with the same bits."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import ray
import torch
from test_training import SPEC, digests, write_facts, write_llama
from test_training_resume import start_ray

from sftlab.store.mirror import Mirror, make_mirror, pull
from sftlab.store.objects import parse_address
from sftlab.training.records import SFTRun, TrainingEvent
from sftlab.training.sft import train_runs
from sftlab.training.spec import TrainingRuntime
from tests.support.s3_server import S3Server, s3_server

pytestmark = [pytest.mark.slow, pytest.mark.long]
RUNTIME = TrainingRuntime(workers=2, zero_stage=2, micro_batch_size=1, checkpoint_every_steps=2)
LONG = SPEC.model_copy(update={"epochs": 12})
OUTPUT = "tuned/cell-0123456789ab/model"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    with s3_server(tmp_path_factory.mktemp("s3")) as started:
        yield started


@pytest.fixture(scope="module")
def local_ray(server: S3Server) -> Iterator[S3Server]:
    start_ray()  # after the server has put its credentials into the environment
    yield server
    ray.shutdown()


@pytest.mark.timeout(1800)
def test_a_run_goes_on_from_its_checkpoint_on_a_machine_with_an_empty_mirror(
    local_ray: S3Server, tmp_path: Path
) -> None:
    write_llama(tmp_path / "llama", tied=False, dtype=torch.float32)
    write_facts(tmp_path / "facts.parquet", 19)
    one, two = (make_mirror(parse_address(local_ray.address("training")), tmp_path / name) for name in "12")

    def run(name: str, output: Path) -> SFTRun:
        return SFTRun(name, str(tmp_path / "llama"), str(tmp_path / "facts.parquet"), str(output), LONG)

    def interrupt(event: TrainingEvent) -> None:
        if event.kind == "checkpoint":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train_runs([run("cell", one.root / OUTPUT)], RUNTIME, interrupt, str(one.root / "ray-train"))
    marks = [name for name in there(one) if name.endswith("state.json")]
    assert len(marks) == 1 and not there(one, "tuned")
    shutil.rmtree(one.root)

    events: list[TrainingEvent] = []
    runs = [run("cell", two.root / OUTPUT), run("whole", tmp_path / "whole")]
    results = train_runs(runs, RUNTIME, events.append, str(two.root / "ray-train"))
    resumed = [event.step for event in events if event.kind == "resumed"]
    assert len(resumed) == 1 and resumed[0] >= 2
    assert results[0].losses == results[1].losses and not one.root.exists()
    assert not [name for name in there(two, "ray-train") if "checkpoints/" in name]
    assert {Path(name).name for name in there(two, "tuned") if "/work/" not in name} >= {
        "model.safetensors",
        "training.json",
    }
    three = make_mirror(two.address, tmp_path / "3")
    assert digests(pull(three.root / OUTPUT)) == digests(tmp_path / "whole")


def there(mirror: Mirror, below: str = "") -> list[str]:
    """Names of the objects below a folder."""
    return sorted(mirror.objects.below(below))
