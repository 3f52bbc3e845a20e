"""Cells per hour of a sweep against one study run per cell, each with a Train job and an engine start of its own.

    python -m benchmarks.sweep --store FINISHED_STORE [--cells 12] [--reference-cells 2]
    python -m benchmarks.sweep --store FINISHED_STORE --whole

FINISHED_STORE holds the facts, the model and the mastery of the pocket study (`make study` leaves them in
runs/store); both sides begin with these and make different cells of 100 facts with the pocket study's ladder. The
reference is `sftlab run` once a cell, as one would do it without sweeps, to its results; the sweep's seconds hold its
report, its best model and MLflow as well. --whole runs the pocket sweep (480 models) to its report in place of that,
then again, against the budgets of an hour and of half a minute. Exit code 1 where a target is missed.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import yaml

CONFIGS = Path(__file__).parents[1] / "jobs" / "configs"
STUDY = CONFIGS / "pocket.yaml"
RUNTIME = CONFIGS / "runtimes" / "laptop-2cpu.yaml"
SFTLAB = Path(sys.executable).parent / "sftlab"
SIZE = 100
WANTED = 5.0  # times the cells per hour
WHOLE_BUDGET, AGAIN_BUDGET = 3600.0, 30.0  # seconds of the pocket sweep, and of its second run


def fresh_store(source: Path, folder: Path) -> Path:
    """What all cells share, and no cell."""
    for stage in ("facts", "model", "mastery"):
        shutil.copytree(source / stage, folder / stage)
    return folder


def call(command: list[str]) -> float:
    started = time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    return time.perf_counter() - started


def sweep_seconds(cells: int, store: Path) -> float:
    """Seconds of a sweep of so many cells, its report and its best model included."""
    axes = {"data": [0, 1, 2, 3], "size": [SIZE], "seed": list(range(cells // 4))}
    path = store.parent / "sweep.yaml"
    path.write_text(yaml.safe_dump({"name": "bench", "study": str(STUDY), "axes": axes}))
    return call(sweeping(path, store))


def sweeping(path: Path, store: Path) -> list[str]:
    return [str(SFTLAB), "sweep", str(path), "--runtime", str(RUNTIME), "--store", str(store)]


def whole(store: Path) -> bool:
    """The pocket sweep, twice; whether both stay within their budgets."""
    command = sweeping(CONFIGS / "sweeps" / "pocket.yaml", store)
    first, again = call(command), call(command)
    models = len(list(store.glob("evaluation/*/record.json")))
    print(f"the pocket sweep: {models} models, {first:.0f} s, {first / WHOLE_BUDGET:.2f} of an hour")
    print(f"its second run: {again:.1f} s, {again / AGAIN_BUDGET:.2f} of {AGAIN_BUDGET:.0f} s")
    return first <= WHOLE_BUDGET and again <= AGAIN_BUDGET


def reference_seconds(cells: int, store: Path) -> list[float]:
    """Seconds of each cell as a study of its own, to its results."""
    command = [str(SFTLAB), "run", str(STUDY), "--runtime", str(RUNTIME), "--store", str(store)]
    command += ["--until", "results", "--set", f"training_sets.sizes=[{SIZE}]"]
    one = "training_sets.buckets=[{}]"
    call([*command, "--set", one.format(4)])  # the base model's answers are made once on both sides
    return [call([*command, "--set", one.format(bucket)]) for bucket in range(cells)]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--store", type=Path, required=True)
    parser.add_argument("--cells", type=int, default=12, help="cells of the sweep, a multiple of 4")
    parser.add_argument("--reference-cells", type=int, default=2, help="at most 4")
    parser.add_argument("--whole", action="store_true", help="run the pocket sweep and run it again")
    options = parser.parse_args()
    if options.whole:
        with tempfile.TemporaryDirectory() as scratch:
            sys.exit(not whole(fresh_store(options.store, Path(scratch) / "sweep")))
    with tempfile.TemporaryDirectory() as scratch:
        each = reference_seconds(options.reference_cells, fresh_store(options.store, Path(scratch) / "alone"))
        alone = sum(each) / len(each)
        print(f"a study a cell: {alone:.1f} s a cell {json.dumps([round(s, 1) for s in each])}", flush=True)
        seconds = sweep_seconds(options.cells, fresh_store(options.store, Path(scratch) / "sweep"))
    together = seconds / options.cells
    print(f"a sweep of {options.cells} cells: {together:.1f} s a cell, {seconds:.1f} s in all")
    print(f"cells per hour: {alone / together:.2f} times as many (wanted: at least {WANTED:.0f})")
    sys.exit(alone < WANTED * together)


if __name__ == "__main__":
    main()
