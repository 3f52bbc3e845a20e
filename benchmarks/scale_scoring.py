"""What the scoring pipeline itself can do: facts x 21 templates through Ray Data, with an engine that answers at once.

    python -m benchmarks.scale_scoring [--facts 1000000] [--samples 1] [--engines 1] [--folder SCRATCH]

A completion is one sampled text of one prompt; a fact has 21 prompts of `--samples` completions each. Facts come from
parquet and finished blocks are parquet, as in a study; prompts are tokenised by a real tokenizer. A tenth of the
facts goes first: time per fact and memory must not grow with their number. Each size runs in a process of its own.
Printed are also the seconds of CPU time, for on a busy machine the clock says little; what it takes to join the
blocks to the mastery table; and what a resume costs that finds all blocks but ten. Exit code 1 below the
completions a second that are wanted, and where memory or the CPU time of a fact grows.
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
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil

from sftlab.facts.table import TOPICS_FILE
from sftlab.facts.templates import load_topics
from sftlab.inference.spec import EngineRuntime, EngineSpec
from sftlab.measurements.fact_blocks import FactBlocks
from sftlab.measurements.scoring import ScoringProgress, ScoringRequest, score, scored
from sftlab.measurements.spec import MasterySpec
from sftlab.studies.knowledge.stages.mastery import write_mastery

WANTED = 20_000  # completions a second
MOST_GROWTH = 1.25  # of memory, and of CPU time a fact, with ten times the facts
TEMPLATES = 21
MIB = 2**20
LOOK_SECONDS = 1.0


class Family:
    """Peak memory and CPU time of this process's children by kind, looked up once a second."""

    def __init__(self) -> None:
        self.peak: dict[str, float] = {}
        self.cpu: dict[int, tuple[str, float]] = {}
        self._over = threading.Event()

    @contextmanager
    def watched(self) -> Iterator[None]:
        thread = threading.Thread(target=self._watch, daemon=True)
        thread.start()
        try:
            yield
        finally:
            self._over.set()
            thread.join()

    def _watch(self) -> None:
        while not self._over.wait(LOOK_SECONDS):
            for child in psutil.Process().children(recursive=True):
                try:
                    kind = "engine" if "MapWorker" in "".join(child.cmdline()) else "ray"
                    times, used = child.cpu_times(), child.memory_info().rss / MIB
                except psutil.NoSuchProcess:
                    continue
                self.cpu[child.pid] = (kind, times.user + times.system)
                if kind == "engine":
                    self.peak[kind] = max(self.peak.get(kind, 0.0), used)

    def seconds(self, kind: str) -> float:
        return sum(seconds for one, seconds in self.cpu.values() if one == kind)


def request_of(folder: Path, facts: int, samples: int) -> ScoringRequest:
    spec = MasterySpec(samples=samples)
    source = folder / f"facts-{facts}"
    blocks = FactBlocks.of(source, spec.block_facts)
    topics = load_topics(source / TOPICS_FILE)
    return ScoringRequest(blocks, topics, str(folder / "model"), spec, EngineSpec(), folder / f"work-{facts}")


def measure(options: argparse.Namespace) -> dict[str, float]:
    """Score one size in this process, the driver."""
    import ray

    from benchmarks import instant

    ray.cloudpickle.register_pickle_by_value(instant)
    os.environ["RAY_worker_niceness"] = "0"  # noqa: SIM112  (Ray's spelling)
    ray.init(address="local", num_cpus=max(4, options.engines), include_dashboard=False, log_to_driver=False)
    request = request_of(options.folder, options.facts, options.samples)
    runtime = EngineRuntime(engines=options.engines, cpus_per_engine=1)
    family, stamps = Family(), []

    def on_progress(progress: ScoringProgress) -> None:
        now = time.perf_counter()
        begun.extend([] if begun else [family.seconds("engine") + time.process_time()])
        stamps[1:] = [(now, progress.blocks_done)] if stamps else []
        stamps[:1] = stamps[:1] or [(now, progress.blocks_done)]
        if now - shown[0] > 30:
            shown[0] = now
            print(f"  {progress.blocks_done:,} of {progress.blocks:,} blocks", file=sys.stderr, flush=True)

    shown, begun = [time.perf_counter()], list[float]()
    started = time.perf_counter()
    with family.watched():
        score(request, runtime, on_progress, instant.InstantEngine)
    whole = time.perf_counter() - started
    found: dict[str, Any] = {"driver_mib": peak_mib(), "engine_mib": family.peak["engine"], "whole": whole}
    (first, before), (last, after) = stamps[0], stamps[-1]
    blocks = len(request.facts)
    found["seconds"] = (last - first) * blocks / max(1, after - before)  # the engine's start left out
    found |= {
        "driver_cpu": time.process_time(),
        "engine_cpu": family.seconds("engine"),
        "ray_cpu": family.seconds("ray"),
    }
    found["block_cpu"] = found["driver_cpu"] + found["engine_cpu"] - begun[0]
    started = time.perf_counter()
    table = options.folder / f"mastery-{options.facts}.parquet"
    write_mastery(scored(request), request.spec.block_facts, request.facts.split_names(), table)
    found |= {"join": time.perf_counter() - started, "joined_mib": peak_mib()}
    for index in range(max(0, blocks - 10), blocks):
        request.path(index).unlink()
    started, stamps[:] = time.perf_counter(), []
    score(request, runtime, on_progress, instant.InstantEngine)
    found["resume"] = time.perf_counter() - started
    ray.shutdown()
    return found


def peak_mib() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def prepare(options: argparse.Namespace) -> None:
    from benchmarks.instant import write_facts, write_model

    write_model(options.folder / "model")
    write_facts(options.folder / f"facts-{options.facts}", options.facts)


def in_fresh_process(what: str, facts: int, options: argparse.Namespace, folder: Path) -> Any:
    command = [
        sys.executable,
        "-m",
        "benchmarks.scale_scoring",
        "--do",
        what,
        "--facts",
        str(facts),
        "--folder",
        str(folder),
    ]
    command += ["--samples", str(options.samples), "--engines", str(options.engines)]
    output = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
    return json.loads(output.splitlines()[-1])


def print_rates(facts: int, samples: int, found: dict[str, float]) -> None:
    rows, seconds = facts * TEMPLATES, found["seconds"]
    rates = f"{rows * samples / seconds:,.0f} completions/s, {facts / seconds:,.0f} facts/s"
    print(
        f"{facts:,} facts, {rows * samples:,} completions: {seconds:.1f} s ({found['whole']:.1f} s with the start)"
    )
    print(f"  {rates}")
    per_cpu = rows * samples / found["block_cpu"]
    print(
        f"  CPU time: engines {found['engine_cpu']:.1f} s, driver {found['driver_cpu']:.1f} s, the rest of Ray "
        f"{found['ray_cpu']:.1f} s; {per_cpu:,.0f} completions per CPU second of engines and driver after their start"
    )
    print(
        f"  peak memory: driver {found['driver_mib']:.0f} MiB, engine {found['engine_mib']:.0f} MiB, "
        f"driver after joining the blocks {found['joined_mib']:.0f} MiB"
    )
    print(
        f"  blocks joined to the table in {found['join']:.1f} s; a resume without ten of them {found['resume']:.1f} s",
        flush=True,
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--facts", type=int, default=1_000_000)
    parser.add_argument("--samples", type=int, default=1, help="completions of each prompt")
    parser.add_argument("--engines", type=int, default=1)
    parser.add_argument("--folder", type=Path, help="scratch (default: a temporary one)")
    parser.add_argument("--do", choices=["prepare", "measure"], help="one part (used by the benchmark)")
    options = parser.parse_args()
    if options.do is not None:
        done = prepare(options) if options.do == "prepare" else measure(options)
        print(json.dumps(done))
        return
    found = {}
    with tempfile.TemporaryDirectory(dir=options.folder) as scratch:
        for facts in (options.facts // 10, options.facts):
            in_fresh_process("prepare", facts, options, Path(scratch))
            found[facts] = in_fresh_process("measure", facts, options, Path(scratch))
            print_rates(facts, options.samples, found[facts])
    few, many = found.values()
    rate = options.facts * TEMPLATES * options.samples / many["seconds"]
    print(f"time per fact, all / a tenth: {many['seconds'] / few['seconds'] / 10:.2f}")
    growth = {"CPU time per fact": many["block_cpu"] / few["block_cpu"] / 10}
    for who in ("driver", "engine", "joined"):
        growth[f"peak memory of {who}"] = many[f"{who}_mib"] / few[f"{who}_mib"]
    for what, ratio in growth.items():
        print(f"{what}, all / a tenth: {ratio:.2f} (wanted: at most {MOST_GROWTH})")
    print(f"completions/s: {rate:,.0f} (wanted: at least {WANTED:,})")
    if rate < WANTED or max(growth.values()) > MOST_GROWTH:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
