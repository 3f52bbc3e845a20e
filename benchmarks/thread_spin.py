"""Time of pre-training by how long waiting threads spin: `python -m benchmarks.thread_spin --busy 2`.

Each setting pre-trains the same small model in a separate process with two threads, and once with one thread, which
never waits. `--busy N` other processes compute at the same time. Wall and processor time of a step are printed as
ratios to the process of one thread.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TypedDict

ONE_THREAD = "one thread"
SPINS = (ONE_THREAD, "libgomp's default", "10000", "1000", "100", "0")
SENTENCE = "Person {0} was born in town {1} and lives in town {2}."
WARM_UP = 10  # steps that are not timed


class Timed(TypedDict):
    """Seconds of a step by the clock and of processors, and the hash of the trained weights."""

    wall: float
    cpu: float
    weights: str


def pretrain(threads: int, hidden: int, documents: int) -> Timed:
    """Pre-train in this process."""
    from sftlab.pocket.pretrain import pretrain_on
    from sftlab.pocket.spec import FamilySpec, Optimisation, PocketRuntime, Shape

    shape = Shape(hidden=hidden, layers=2, heads=2, intermediate=2 * hidden, vocabulary=1024, sequence=64)
    spec = FamilySpec(shape=shape, optimisation=Optimisation(sequences=4))
    texts = [SENTENCE.format(i, i * 7 % 100, i * 11 % 100) for i in range(documents)]
    clock: list[tuple[float, float]] = []

    def progress(_done: int, _all: int, _loss: float) -> None:
        clock.append((time.perf_counter(), time.process_time()))

    with tempfile.TemporaryDirectory() as folder:
        pretrain_on(
            texts, spec, Path(folder), PocketRuntime(threads=threads, checkpoint_every=10**6), progress
        )
        weights = hashlib.sha256((Path(folder) / "model.safetensors").read_bytes()).hexdigest()
    wall, cpu = (
        (end - start) / (len(clock) - 1 - WARM_UP)
        for start, end in zip(clock[WARM_UP], clock[-1], strict=True)
    )
    return {"wall": wall, "cpu": cpu, "weights": weights}


def measured(spin: str, options: argparse.Namespace) -> Timed:
    """`pretrain` in a process whose environment says how long threads spin."""
    environment = {name: value for name, value in os.environ.items() if name != "GOMP_SPINCOUNT"}
    if spin.isdigit():
        environment["GOMP_SPINCOUNT"] = spin
    words = ["--hidden", str(options.hidden), "--documents", str(options.documents)]
    words += ["--threads", "1" if spin == ONE_THREAD else "2"]
    found = subprocess.run(
        [sys.executable, "-m", "benchmarks.thread_spin", *words],
        env=environment,
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    timed: Timed = json.loads(found.stdout.splitlines()[-1])
    return timed


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--hidden", type=int, default=64, help="hidden size of the model")
    parser.add_argument("--documents", type=int, default=2_000)
    parser.add_argument("--busy", type=int, default=0, help="processes that compute at the same time")
    parser.add_argument("--repeats", type=int, default=3, help="the fastest of as many is printed")
    parser.add_argument(
        "--threads", type=int, help="pre-train alone and print seconds (used by the benchmark)"
    )
    options = parser.parse_args()
    if options.threads:
        print(json.dumps(pretrain(options.threads, options.hidden, options.documents)))
        return
    busy = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(options.busy)]
    try:
        runs = [{spin: measured(spin, options) for spin in SPINS} for _ in range(options.repeats)]
    finally:
        for process in busy:
            process.kill()
    least = {spin: {key: min(run[spin][key] for run in runs) for key in ("wall", "cpu")} for spin in SPINS}
    print("| turns | time of a step | processor time of a step |\n|---|---|---|")
    for spin in SPINS:
        ratios = (least[spin][key] / least[ONE_THREAD][key] for key in ("wall", "cpu"))
        print(f"| {spin} | {' | '.join(f'{ratio:.2f}' for ratio in ratios)} |")
    print(f"\none thread: {least[ONE_THREAD]['wall'] * 1000:.1f} ms a step; {os.cpu_count()} processors")
    print(f"kinds of weights: {len({run[spin]['weights'] for run in runs for spin in SPINS})}")


if __name__ == "__main__":
    main()
