"""The whole pocket study in a fresh store, stage by stage, against its targets on 2 cores.

    python -m benchmarks.study [--study jobs/configs/pocket.yaml] [--runtime ...] [--budget 720]

Prints the seconds of each stage, the engines that were seen to start (one process of its own each, restarts
included), models evaluated, the smallest share of a mastery bucket, and the ratio of the whole to the budget; then
the ratio of a second run, which finds everything, to the first. Exits with 1 where a target is missed.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import psutil
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from sftlab.facts.mastery import BUCKETS

SFTLAB = str(Path(sys.executable).parent / "sftlab")
DONE = re.compile(r"(?P<stage>.+): done in (?P<seconds>[\d,.]+) s")
# As Ray calls the process of an actor that holds an engine: ray::MapWorker(MapBatches(BlockScorer)).
ENGINE = re.compile(r"ray::.*\b(BlockScorer|EngineWorker)\b")
LOOKS_A_SECOND = 5  # an engine's process lives for many seconds
SPLITS = ("train", "test", "test_ood")
MOST_STARTS, SMALLEST_SHARE, PRETRAINING_SECONDS = 2, 0.08, 240.0


@dataclass(frozen=True)
class Run:
    """One call of `sftlab run`: wall seconds, the lines that it printed, and process ids of the engines it started."""

    seconds: float
    lines: list[str]
    engines: set[int]

    @property
    def stages(self) -> dict[str, float]:
        """Seconds by stage, of those that were built."""
        found = filter(None, map(DONE.fullmatch, self.lines))
        return {match["stage"]: float(match["seconds"].replace(",", "")) for match in found}


def engines_among(processes: Iterable[psutil.Process]) -> set[int]:
    """Process ids of those that hold an engine."""
    found = set()
    for process in processes:
        with suppress(psutil.Error):  # it has ended meanwhile
            if ENGINE.match(" ".join(process.cmdline())):
                found.add(process.pid)
    return found


def run(study: str, runtime: str, store: str) -> Run:
    started = time.perf_counter()
    command = [SFTLAB, "run", study, "--runtime", runtime, "--store", store]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    engines: set[int] = set()
    ended = threading.Event()

    def watch() -> None:
        while not ended.wait(1 / LOOKS_A_SECOND):
            with suppress(psutil.Error):
                engines.update(engines_among(psutil.Process(process.pid).children(recursive=True)))

    watcher = threading.Thread(target=watch)
    watcher.start()
    printed, _ = process.communicate()
    ended.set()
    watcher.join()
    if process.returncode:
        raise SystemExit(f"{printed}\nsftlab run ended with {process.returncode}")
    return Run(time.perf_counter() - started, printed.splitlines(), engines)


def bucket_shares(mastery: pa.Table, split: str) -> list[float]:
    """Share of each bucket in all facts of a split."""
    buckets = mastery.filter(pc.equal(mastery["split"], split))["bucket"].to_pylist()
    return [buckets.count(bucket) / len(buckets) for bucket in BUCKETS]


def missed(first: Run, mastery: pa.Table, budget: float) -> list[str]:
    """Print what the first run is measured by; returns what misses its target."""
    for stage, seconds in first.stages.items():
        print(f"{stage:<22} {seconds:>7,.1f} s")
    shares = {split: min(bucket_shares(mastery, split)) for split in SPLITS}
    print(f"engine starts {len(first.engines)} (wanted: at most {MOST_STARTS})")
    for split, share in shares.items():
        print(f"smallest bucket of {split:<9} {share:.3f}   {share / SMALLEST_SHARE:.2f} x the share wanted")
    pretraining = first.stages.get("pre-training", 0.0)  # of a study that brings its model: none
    print(f"pre-training {pretraining:6.1f} s   {pretraining / PRETRAINING_SECONDS:.2f} x its budget")
    print(f"first run   {first.seconds:7.1f} s   {first.seconds / budget:.2f} x the budget of {budget:.0f} s")
    found = {
        f"{len(first.engines)} engine starts": len(first.engines) > MOST_STARTS,
        "no engine was seen": not first.engines,
        "the time of pre-training": pretraining > PRETRAINING_SECONDS,
        "the time of the whole": first.seconds > budget,
    } | {f"the smallest bucket of {split}": share < SMALLEST_SHARE for split, share in shares.items()}
    return [what for what, is_missed in found.items() if is_missed]


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--study", default="jobs/configs/pocket.yaml")
    parser.add_argument("--runtime", default="jobs/configs/runtimes/laptop-2cpu.yaml")
    parser.add_argument("--budget", type=float, default=720.0, help="seconds")
    parser.add_argument("--keep", type=Path, help="new folder for the store; a temporary one if unset")
    options = parser.parse_args(arguments)
    if options.keep is not None and options.keep.exists():
        parser.error(f"--keep {options.keep}: exists already; give a new folder.")
    with tempfile.TemporaryDirectory() as scratch:
        store = options.keep or Path(scratch) / "store"
        first = run(options.study, options.runtime, str(store))
        (table,) = store.glob("mastery/*/mastery.parquet")
        wrong = missed(first, pq.read_table(table, columns=["split", "bucket"]), options.budget)
        models = len(list(store.glob("evaluation/*/record.json")))
        print(f"models evaluated {models} (the base model is one)")
        second = run(options.study, options.runtime, str(store))
        print(f"second run  {second.seconds:7.1f} s   {second.seconds / first.seconds:.3f} x the first")
        if second.engines:
            wrong.append("the second run started an engine")
    if wrong:
        raise SystemExit(f"missed: {', '.join(wrong)}")


if __name__ == "__main__":
    main()
