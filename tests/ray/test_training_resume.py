"""One Ray Train worker group for many runs; kills of everything, and the same bits in the end.

Starts of Ray and of worker groups cost far more than the runs, so one story serves several claims: an
interrupted driver, a killed driver and a killed worker, one after another over the same three runs; in the
group that the last of them leaves the same runs undisturbed, and one that diverges.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

import psutil
import pytest
import ray
import torch
from safetensors.torch import load_file, save_file
from test_training import BF16, SPEC, digests, write_facts, write_llama

from sftlab.errors import UserError
from sftlab.training import sft
from sftlab.training.failures import TrainingError
from sftlab.training.records import SFTRun, TrainingEvent
from sftlab.training.sft import fit, ignore, train_runs
from sftlab.training.spec import SFTSpec, TrainingRuntime

pytestmark = pytest.mark.slow

RUNTIME = TrainingRuntime(
    workers=2, zero_stage=2, micro_batch_size=1, checkpoint_every_steps=5, max_failures=1
)
STEPS = 60  # 19 facts in batches of 4, 12 epochs: two or three seconds, so that a signal lands inside
LONG = SPEC.model_copy(update={"epochs": 12})
HELD = BF16.model_copy(update={"epochs": 12, "l2_sp": 100.0, "kl_to_base": 5.0})
SPECS = {"a": LONG, "b": HELD, "c": LONG.model_copy(update={"seed": 1})}


def make_runs(root: Path, outputs: str, specs: dict[str, SFTSpec]) -> list[SFTRun]:
    """One run a spec, on the base and the facts of `root`."""
    base, facts = str(root / "llama"), str(root / "facts.parquet")
    return [SFTRun(name, base, facts, str(root / outputs / name), spec) for name, spec in specs.items()]


def undisturbed_runs(root: Path) -> list[SFTRun]:
    """The same runs under other names, for one call together with the others."""
    return make_runs(root, "undisturbed", {f"{name}-whole": spec for name, spec in SPECS.items()})


def start_ray() -> None:
    """A local Ray of this process, whose workers find these tests."""
    path = os.pathsep.join([str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")])
    ray.init(
        address="local",
        num_cpus=4,
        include_dashboard=False,
        log_to_driver=False,
        runtime_env={"env_vars": {"PYTHONPATH": path, "OMP_NUM_THREADS": "1"}},
    )


def drive(root: Path, outputs: str) -> None:
    """What the subprocess below runs: a driver that prints its events."""
    signal.signal(signal.SIGINT, signal.default_int_handler)  # tests started in the background ignore it
    start_ray()

    def tell(event: TrainingEvent) -> None:
        print(event.run_id, event.kind, event.step, flush=True)

    train_runs(make_runs(root, outputs, SPECS), RUNTIME, tell, str(root / f"scratch-{outputs}"))
    print("all done", flush=True)


def driver(root: Path, outputs: str) -> subprocess.Popen[str]:
    """Start `drive` in a process group of its own, as a terminal does."""
    code = f"from pathlib import Path; import test_training_resume as t; t.drive(Path({str(root)!r}), {outputs!r})"
    path = os.pathsep.join([str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")])
    return subprocess.Popen(
        [sys.executable, "-c", code],
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
        env={**os.environ, "PYTHONPATH": path},
    )


def events_until(stream: IO[str] | None, wanted: str) -> list[str]:
    """Lines of a driver up to the first that starts with `wanted`."""
    assert stream is not None
    lines = []
    for line in stream:
        lines.append(line.strip())
        if line.startswith(wanted):
            return lines
    raise AssertionError(f"the driver ended without {wanted!r}: {lines}")


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A base model and its facts."""
    folder = tmp_path_factory.mktemp("resume")
    write_llama(folder / "llama", tied=False, dtype=torch.float32)
    write_facts(folder / "facts.parquet", 19)
    return folder


def write_nan_model(root: Path) -> str:
    """A copy of the base model with one weight that is not a number."""
    folder = root / "nan"
    shutil.copytree(root / "llama", folder)
    weights = load_file(folder / "model.safetensors")
    weights["model.norm.weight"][0] = float("nan")
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    return str(folder)


@pytest.fixture(scope="module")
def local_ray() -> Iterator[None]:
    start_ray()
    yield
    ray.shutdown()


def kill_a_worker() -> None:
    """SIGKILL to one Ray Train worker of this process's own Ray."""
    workers = [
        process
        for process in psutil.Process().children(recursive=True)
        if process.name().startswith("ray::") and "RayTrainWorker" in " ".join(process.cmdline())
    ]
    assert len(workers) == 2, [process.name() for process in psutil.Process().children(recursive=True)]
    workers[-1].kill()


@pytest.mark.timeout(1800)
@pytest.mark.usefixtures("local_ray")
def test_whatever_is_killed_the_runs_end_with_the_bits_of_an_undisturbed_call(root: Path) -> None:
    interrupted = driver(root, "disturbed")
    events_until(interrupted.stdout, "a step")
    interrupted.send_signal(signal.SIGINT)
    lines = interrupted.communicate(timeout=180)[0].splitlines()
    assert interrupted.returncode not in (0, None)
    assert "all done" not in lines
    assert list((root / "scratch-disturbed" / "checkpoints").glob("a-*/step-*/state.json"))
    assert not (root / "disturbed" / "a" / "training.json").exists()

    killed = driver(root, "disturbed")
    lines = events_until(killed.stdout, "b checkpoint")
    for process in [*psutil.Process(killed.pid).children(recursive=True), psutil.Process(killed.pid)]:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()
    killed.wait()
    assert lines[0].startswith("a resumed")
    assert (root / "disturbed" / "a" / "training.json").exists()
    assert not (root / "disturbed" / "b" / "training.json").exists()
    stamp = (root / "disturbed" / "a" / "model.safetensors").stat().st_mtime_ns

    seen: list[str] = []

    def disturb(event: TrainingEvent) -> None:
        if f"{event.run_id} {event.kind}" == "c checkpoint" and "c checkpoint" not in seen:
            kill_a_worker()
        seen.append(f"{event.run_id} {event.kind}")

    runs, wholes = make_runs(root, "disturbed", SPECS), undisturbed_runs(root)
    facts, wild_output = str(root / "facts.parquet"), root / "undisturbed" / "wild"
    wild = SFTRun("wild", write_nan_model(root), facts, str(wild_output), SPEC)
    scratch = str(root / "scratch-disturbed")
    with pytest.raises(UserError, match=r"run 'wild': the loss of step 1 of 5 is nan"):
        train_runs([*runs, *wholes, wild], RUNTIME, disturb, scratch)
    assert seen[:2] == ["a skipped", "b resumed"]
    assert "c resumed" in seen
    assert not {f"{run.run_id} resumed" for run in wholes} & set(seen)
    assert (root / "disturbed" / "a" / "model.safetensors").stat().st_mtime_ns == stamp

    results = train_runs([*runs, *wholes], RUNTIME, None, scratch)
    assert [result.steps for result in results] == [STEPS] * 6
    for result, wanted in zip(results[:3], results[3:], strict=True):
        assert result.losses == wanted.losses
        assert result.learning_rates == wanted.learning_rates
        assert digests(result.output_dir) == digests(wanted.output_dir)
    assert not wild_output.exists()


@pytest.mark.timeout(600)  # far below the half hour for which the other rank would wait
@pytest.mark.usefixtures("local_ray")
def test_what_rank_0_alone_cannot_do_ends_the_other_rank_too(root: Path) -> None:
    (run,) = make_runs(root, "alone", {"x": SPEC})
    Path(run.output_dir).mkdir(parents=True)
    (Path(run.output_dir) / "training.json").write_text("{")  # read by rank 0 alone
    with pytest.raises(UserError, match=r"training\.json: .*delete its folder"):
        fit([run], RUNTIME, ignore, str(root / "scratch-alone"))


def stopped_main(config: dict[str, Any]) -> None:
    """`rank_main`, in which the process of rank 1 is stopped once, in the fourth step."""
    from sftlab.training import loop

    train_step, told = loop.train_step, Path(config["storage_dir"]) / "stopped"

    def stopped_step(training: loop.Training, me: loop.Rank, step: int) -> None:
        if me.rank == 1 and step == 3 and not told.exists():
            told.write_text(str(os.getpid()))
            os.kill(os.getpid(), signal.SIGSTOP)
        train_step(training, me, step)

    loop.train_step = stopped_step
    sft.rank_main(config)


@pytest.mark.long  # Ray Train asks the stopped process for half a minute to leave its group
@pytest.mark.timeout(600)
@pytest.mark.usefixtures("local_ray")
def test_a_rank_that_is_stopped_is_taken_for_dead_and_the_run_goes_on_from_its_checkpoint(root: Path) -> None:
    run, whole = make_runs(root, "stopped", {"stopped": SPEC, "undisturbed": SPEC})
    runtime = RUNTIME.model_copy(update={"checkpoint_every_steps": 2, "timeout_seconds": 15.0})
    scratch, seen = root / "scratch-stopped", list[str]()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sft, "rank_main", stopped_main)
        results = train_runs(
            [run, whole], runtime, lambda event: seen.append(f"{event.run_id} {event.kind}"), str(scratch)
        )
    assert "stopped resumed" in seen and "undisturbed resumed" not in seen
    assert results[0].losses == results[1].losses
    assert digests(results[0].output_dir) == digests(results[1].output_dir)
    assert not psutil.pid_exists(int((scratch / "stopped").read_text()))


def hungry_main(config: dict[str, Any]) -> None:
    """`rank_main`, in which the GPU of rank 1 runs out of memory in the fourth step."""
    from sftlab.training import loop

    train_step = loop.train_step

    def hungry_step(training: loop.Training, me: loop.Rank, step: int) -> None:
        if me.rank == 1 and step == 3:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
        train_step(training, me, step)

    loop.train_step = hungry_step
    sft.rank_main(config)


@pytest.mark.timeout(600)
@pytest.mark.usefixtures("local_ray")
def test_a_rank_out_of_memory_names_the_settings_and_the_run_goes_on_from_its_checkpoint(root: Path) -> None:
    run, whole = make_runs(root, "hungry", {"hungry": SPEC, "whole": SPEC})
    runtime = RUNTIME.model_copy(update={"checkpoint_every_steps": 2})
    scratch, seen = str(root / "scratch-hungry"), list[str]()
    with pytest.MonkeyPatch.context() as patch, pytest.raises(UserError) as told:
        patch.setattr(sft, "rank_main", hungry_main)
        train_runs([run], runtime, None, scratch)
    assert not isinstance(told.value, TrainingError)  # max_failures would only repeat it
    message = str(told.value)
    assert (
        "ran out of memory" in message
        and "(rank 1: CUDA out of memory. Tried to allocate 2.00 GiB)" in message
    )
    assert all(name in message for name in ("micro_batch_size (now 1)", "zero_stage (now 2)", "offload"))
    results = train_runs(
        [run, whole], runtime, lambda event: seen.append(f"{event.run_id} {event.kind}"), scratch
    )
    assert seen[0] == "hungry resumed" and "whole resumed" not in seen
    assert results[0].losses == results[1].losses
    assert digests(results[0].output_dir) == digests(results[1].output_dir)


@pytest.mark.usefixtures("local_ray")
def test_gpus_that_the_cluster_lacks_are_refused_before_a_worker_starts(root: Path) -> None:
    runtime = RUNTIME.model_copy(update={"gpus_per_worker": 1})
    with pytest.raises(UserError, match=r"asks for 2 GPUs .* the Ray cluster has 0"):
        train_runs(make_runs(root, "none", SPECS), runtime, None, str(root / "scratch-none"))
