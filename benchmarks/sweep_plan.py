"""How long a plan of 10,000 trials takes against a store of 100,000 artifacts, and how its memory grows.

    python -m benchmarks.sweep_plan [--trials 10000] [--artifacts 100000]

The store is made of records alone. Half of the planned steps are in it. The reference is the same plan of a tenth
of the trials: time and memory per trial must not grow.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import yaml

from sftlab.execution.progress import SilentProgress
from sftlab.execution.runtime import Runtime
from sftlab.store.artifact import Store
from sftlab.store.fingerprint import canonical
from sftlab.studies.knowledge.sources import resolve
from sftlab.studies.knowledge.sweep.cost import plan_sweep
from sftlab.studies.knowledge.sweep.sweep import Sweep
from sftlab.studies.load import load_sweep

WANTED = 10.0  # seconds
STUDY = Path(__file__).parents[1] / "jobs" / "configs" / "pocket.yaml"


def sweep_of(trials: int, folder: Path) -> Sweep:
    """Five buckets and sizes; the seeds make up the number."""
    axes = {"data": [0, 1, 2, 3, 4], "size": [25, 50, 75, 100], "seed": list(range(trials // 20))}
    path = folder / f"sweep-{trials}.yaml"
    path.write_text(yaml.safe_dump({"name": "many", "study": str(STUDY), "axes": axes}))
    spec, study = load_sweep(path)
    store = Store(folder / "store")
    return Sweep(spec, study, resolve(study, folder), store, Runtime(), SilentProgress())


def fill(sweep: Sweep, artifacts: int) -> None:
    """Commit the steps of the first trials, as records without files, up to that many."""
    written = 0
    for trial in sweep.listed():
        (cell,) = trial.plan(sweep.sources).cells
        for step in (cell.training_set, cell.tuned, cell.change, cell.controls, *cell.evaluations.values()):
            path = sweep.store.path(step)
            path.mkdir(parents=True, exist_ok=True)
            record = {"id": step.id, "stage": step.stage, "slug": step.slug, "spec": canonical(step.spec)}
            record |= {"inputs": dict(step.inputs), "revision": 1, "files": {}, "provenance": {}}
            (path / "record.json").write_text(json.dumps(record))
            written += 1
            if written == artifacts:
                return


def measure(trials: int, folder: Path) -> None:
    """Plan in this process; prints seconds and the growth of its memory in MB."""
    sweep = sweep_of(trials, folder)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    started = time.perf_counter()
    text = plan_sweep(sweep)
    seconds = time.perf_counter() - started
    after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    print(json.dumps([seconds, (after - before) / 1024, text]))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--trials", type=int, default=10_000)
    parser.add_argument("--artifacts", type=int, default=100_000)
    parser.add_argument("--measure", type=Path, help="plan in this folder (used by the benchmark)")
    options = parser.parse_args()
    if options.measure is not None:
        measure(options.trials, options.measure)
        return
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        fill(sweep_of(2 * options.artifacts // 11 // 20 * 20, folder), options.artifacts)
        found = {}
        for trials in (options.trials // 10, options.trials):
            command = [sys.executable, __file__, "--measure", scratch, "--trials", str(trials)]
            output = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
            seconds, memory, text = json.loads(output)
            found[trials] = (seconds, memory)
            print(f"{text}\n{trials:,} trials: {seconds:.1f} s, {memory:.0f} MB more memory\n", flush=True)
    (few_seconds, few_memory), (seconds, memory) = found.values()
    print(
        f"time: {seconds:.1f} s (wanted: at most {WANTED:.0f}), {seconds / few_seconds:.1f} times that of a tenth"
    )
    print(f"memory: {memory - few_memory:+.0f} MB against that of a tenth of the trials")


if __name__ == "__main__":
    main()
