"""What Ray Tune and the pools of a sweep cost: 1,000 trials on 64 logical GPUs, with engines and training at once.

    python -m benchmarks.scale_sweep [--trials 1000] [--engines 64] [--nodes 8] [--seconds 20] [--folder SCRATCH]

A head without engines, and Ray nodes that say they have a GPU for each of their engines, all on this machine: nodes of
eight GPUs by default, as each of Ray's nodes takes 170 MB. What a network between them costs is not in these
figures. Engines are real actors, one process
each, that answer at once but for `--seconds` a trial, which they sleep. Fine-tuning copies the base model with a
little noise. All else is real: drawing, profiling, mixing, commits, records, Ray Tune. Printed are the seconds of each
trial beside its engine's, the share of the time that engines idled while trials had still to begin, and how often a
trial was seen to wait for an engine while one was idle. With
`--seconds 0` the first is the overhead of a trial alone; on a machine with fewer cores than a cluster has, trials
come no faster than it can compute them, so that the second needs engines that take their time. Exit code 1 where a
trial is not finished, or waits while an engine is idle; no rate is wanted.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import psutil
import yaml

from benchmarks import instant
from sftlab.execution.progress import SilentProgress
from sftlab.execution.runtime import SweepRuntime
from sftlab.inference.engine import Completion, Prompt
from sftlab.inference.spec import EngineRuntime, EngineSpec
from sftlab.store.artifact import Store
from sftlab.studies.knowledge.sources import resolve
from sftlab.studies.knowledge.sweep.run import run_sweep
from sftlab.studies.knowledge.sweep.sweep import Sweep
from sftlab.studies.load import load_runtime, load_sweep
from sftlab.sweeps.pools import start_pools
from sftlab.training.records import (
    History,
    SFTResult,
    SFTRun,
    TrainingEvent,
    read_result,
    write_result,
)
from sftlab.training.spec import TrainingRuntime

CONFIGS = Path(__file__).parents[1] / "jobs" / "configs"
RUNTIME = CONFIGS / "runtimes" / "laptop-2cpu.yaml"
SFTLAB = Path(sys.executable).parent / "sftlab"
PERCENTS = [0, 10]
MOST_UNSERVED = 0.01  # of the looks: one may fall between an engine's two counts


class LightTokenizer:
    """The model's tokenizer without transformers around it, which would take 200 MB in each of many processes."""

    bos_token_id = None

    def __init__(self, model_dir: str) -> None:
        from tokenizers import Tokenizer

        self._tokenizer = Tokenizer.from_file(str(Path(model_dir) / "tokenizer.json"))

    def __call__(self, text: str, add_special_tokens: bool) -> dict[str, list[int]]:
        return {"input_ids": self._tokenizer.encode(text, add_special_tokens=add_special_tokens).ids}


class SleepingEngine(instant.InstantEngine):
    """Answers after a share of the seconds that a trial is to take, for each of its models."""

    def __init__(self, seconds: float, model_dir: str, spec: EngineSpec, runtime: EngineRuntime) -> None:
        del spec, runtime
        self.tokenizer, self.max_model_len, self.seconds = LightTokenizer(model_dir), 2048, seconds

    def answer(self, prompts: Sequence[Prompt], max_tokens: int) -> list[Completion]:
        time.sleep(self.seconds / len(PERCENTS))
        return super().answer(prompts, max_tokens)


def train_at_once(
    runs: Sequence[SFTRun],
    runtime: TrainingRuntime,
    on_progress: Callable[[TrainingEvent], None] | None = None,
    storage_dir: str = "",
) -> list[SFTResult]:
    """What `training.sft.train_runs` leaves behind: the base model, a little moved, and its record."""
    del storage_dir
    import shutil

    import numpy as np
    from safetensors.numpy import load_file, save_file

    results = []
    for run in runs:
        folder = Path(run.output_dir)
        shutil.copytree(run.base_model, folder, dirs_exist_ok=True)
        draw = np.random.default_rng(run.spec.seed)
        for path in folder.glob("*.safetensors"):
            tensors = {
                name: t * (1 + 0.01 * draw.standard_normal(t.shape, t.dtype))
                for name, t in load_file(path).items()
            }
            save_file(tensors, path, metadata={"format": "pt"})
        write_result(run, runtime, 1, History([1.0], [1e-5], 1, 1, 1.0))
        if on_progress is not None:
            on_progress(TrainingEvent(run.run_id, "finished", 1, 1, 1.0, 1e-5, 1.0))
        result = read_result(run)
        assert result is not None
        results.append(result)
    return results


@dataclass
class Look:
    """What is seen of the pool of engines at one moment, in seconds since the first look."""

    at: float
    busy: int
    busy_seconds: float
    size: int
    waiting: int  # trials that wait for an engine
    asked: int  # trials that have come to the pool so far


class Watch:
    """Looks at the pool of engines twice a second, and at the memory of Ray's processes every ten."""

    def __init__(self) -> None:
        self.looks: list[Look] = []
        self.memory: dict[str, float] = {}
        self.over = threading.Event()
        self.name = ""
        self.done_of: Callable[[], int] = lambda: 0
        self.thread = threading.Thread(target=self._run, daemon=True)

    def _run(self) -> None:
        import ray

        began = time.monotonic()
        while not self.over.wait(0.5):
            try:
                usage = ray.get(ray.get_actor(f"{self.name}-engines").stats.remote())
            except ValueError:  # the pools are not up yet, or no longer
                continue
            now = time.monotonic() - began
            asked = usage.done // len(PERCENTS) + usage.busy + usage.waiting
            self.looks.append(Look(now, usage.busy, usage.busy_seconds, usage.size, usage.waiting, asked))
            if len(self.looks) % 20 == 1:
                self._look_at_memory()
            if len(self.looks) % 60 == 0:
                print(f"  {now:.0f} s: {usage}", file=sys.stderr, flush=True)

    def _look_at_memory(self) -> None:
        used: dict[str, list[float]] = {}
        for child in psutil.Process().children(recursive=True):
            try:
                title, size = " ".join(child.cmdline())[:60], child.memory_info().rss / 2**20
            except psutil.NoSuchProcess:
                continue
            kind = next((k for k in ("EngineWorker", "ImplicitFunc", "Pool") if k in title), "other")
            used.setdefault(kind, []).append(size)
        for kind, sizes in used.items():
            self.memory[kind] = max(self.memory.get(kind, 0.0), sum(sizes))
            self.memory[f"{kind} processes"] = max(self.memory.get(f"{kind} processes", 0), len(sizes))


def sweep_of(options: argparse.Namespace, folder: Path) -> Sweep:
    axes = {"data": [0], "size": [4], "seed": list(range(options.trials)), "percent": PERCENTS}
    path = folder / "sweep.yaml"
    path.write_text(yaml.safe_dump({"name": "scale", "study": str(CONFIGS / "tiny.yaml"), "axes": axes}))
    spec, study = load_sweep(path)
    runtime = load_runtime(RUNTIME)
    runtime = runtime.model_copy(
        update={
            "engine": EngineRuntime(gpus_per_engine=1, cpus_per_engine=0),
            "training": runtime.training.model_copy(update={"workers": 1, "gpus_per_worker": 1}),
            "sweep": SweepRuntime(),  # as many engines as there are GPUs
        }
    )
    store = Store(folder / "store")
    pools = partial(start_pools, engine=partial(SleepingEngine, options.seconds), train_runs=train_at_once)
    return Sweep(spec, study, resolve(study, store.root), store, runtime, SilentProgress(), pools)


def idle_share(looks: Sequence[Look], trials: int) -> tuple[float, float]:
    """Share of engine time spent idle while trials had still to come, and the seconds that this went on.

    It begins when all engines are busy for the first time (or as many as ever were): until then processes start.
    """
    most = max(look.busy for look in looks)
    first = next(look for look in looks if look.busy == most)
    last = [look for look in looks if look.at >= first.at and look.asked < trials][-1]
    seconds = last.at - first.at
    # Looks are stamped by the driver and engine time by the pool: fully busy engines may seem a hair more than busy.
    return max(0.0, 1 - (last.busy_seconds - first.busy_seconds) / max(1e-9, seconds * first.size)), seconds


@contextmanager
def nodes(engines: int, count: int) -> Iterator[None]:
    """Ray's head with a GPU for training, joined by this process, and `count` nodes that hold the engines' GPUs."""
    import ray
    from ray.cluster_utils import Cluster

    held = [engines // count + (number < engines % count) for number in range(count)]
    store = {"object_store_memory": 100 * 2**20}
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 8, "num_gpus": 1, **store})
    try:
        for gpus in held:
            cluster.add_node(num_cpus=0, num_gpus=gpus, **store)
        ray.init(address=cluster.address, log_to_driver=False)
        yield
    finally:
        ray.shutdown()
        cluster.shutdown()


def measure(options: argparse.Namespace) -> dict[str, Any]:
    import ray

    ray.cloudpickle.register_pickle_by_value(instant)
    os.environ["RAY_worker_niceness"] = "0"  # noqa: SIM112  (Ray's spelling)
    with nodes(options.engines, options.nodes):
        sweep, watch = sweep_of(options, options.folder), Watch()
        watch.name = f"sftlab-{sweep.id[:12]}"
        watch.thread.start()
        started = time.perf_counter()
        finished = run_sweep(sweep)
        seconds = time.perf_counter() - started
        watch.over.set()
        watch.thread.join()
    assert len(finished) == options.trials
    idle, window = idle_share(watch.looks, options.trials)
    busy = [look for look in watch.looks if look.busy_seconds > 0]
    return {
        "seconds": seconds,
        "before": busy[0].at,
        "trials_seconds": busy[-1].at - busy[0].at,
        "engine_seconds": busy[-1].busy_seconds,
        "idle": idle,
        "window": window,
        "looks": len(busy),
        "unserved": sum(look.waiting > 0 and look.busy < look.size for look in busy),
        "ready": next(look.at for look in busy if look.busy == max(one.busy for one in busy)) - busy[0].at,
        "driver_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
        "driver_cpu": time.process_time(),
        "memory": watch.memory,
        "size": busy[-1].size,
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--trials", type=int, default=1000)
    parser.add_argument("--engines", type=int, default=64)
    parser.add_argument("--nodes", type=int, default=8, help="Ray nodes that hold the engines")
    parser.add_argument(
        "--seconds", type=float, default=20.0, help="what an engine takes for the models of a trial"
    )
    parser.add_argument(
        "--store", type=Path, help="the tiny study's, run to its mastery (default: it is run first)"
    )
    parser.add_argument("--folder", type=Path, help="run the sweep there (used by the benchmark)")
    options = parser.parse_args()
    if options.folder is not None:
        print(json.dumps(measure(options)))
        return
    with tempfile.TemporaryDirectory() as scratch:
        store = Path(scratch) / "store"
        if options.store is None:
            command = [str(SFTLAB), "run", str(CONFIGS / "tiny.yaml"), "--runtime", str(RUNTIME)]
            subprocess.run([*command, "--store", str(store), "--until", "mastery"], check=True)
        else:
            import shutil

            for stage in ("facts", "model", "mastery"):
                shutil.copytree(options.store / stage, store / stage)
        command = [
            sys.executable,
            "-m",
            "benchmarks.scale_sweep",
            "--folder",
            scratch,
            "--trials",
            str(options.trials),
        ]
        command += ["--engines", str(options.engines), "--nodes", str(options.nodes)]
        command += ["--seconds", str(options.seconds)]
        output = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
    print_times(options, json.loads(output.splitlines()[-1]))


def print_times(options: argparse.Namespace, found: dict[str, Any]) -> None:
    trials = options.trials
    each = found["trials_seconds"] / trials
    print(
        f"{trials:,} trials of {len(PERCENTS)} models on {found['size']} engines of {options.nodes} nodes, "
        f"{options.seconds:g} s a trial: {found['seconds']:.0f} s in all, "
        f"{found['before']:.0f} s of them before the first engine"
    )
    print(
        f"  {each * 1000:.0f} ms a trial; engines {found['engine_seconds'] / trials:.2f} s a trial; "
        f"driver's CPU time {found['driver_cpu'] / trials * 1000:.0f} ms a trial"
    )
    print(
        f"  engines idle while trials had still to come: {found['idle']:.1%} of {found['window']:.0f} s, once all had "
        f"started ({found['ready']:.0f} s after the first)"
    )
    print(
        f"  looks at which a trial waited while an engine was idle: {found['unserved']} of {found['looks']}"
    )
    memory = {name: round(value) for name, value in sorted(found["memory"].items())}
    print(f"  peak memory: driver {found['driver_mib']:.0f} MiB; MiB by kind of process {memory}")
    if found["unserved"] > MOST_UNSERVED * found["looks"]:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
