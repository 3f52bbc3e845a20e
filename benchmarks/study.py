"""The whole pocket study in a fresh store, stage by stage, against its budget of 12 minutes on 2 cores.

    python benchmarks/study.py [--study jobs/configs/pocket.yaml] [--runtime ...] [--budget 720]

Prints the seconds of each stage, engine starts and models evaluated, and the ratio of the whole to the budget; then
the ratio of a second run, which finds everything, to the first.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

SFTLAB = str(Path(sys.executable).parent / "sftlab")
DONE = re.compile(r"(?P<stage>.+): done in (?P<seconds>[\d,.]+) s")


def run(study: str, runtime: str, store: str) -> tuple[float, list[str]]:
    """Wall seconds of `sftlab run`, and the lines that it printed."""
    started = time.perf_counter()
    command = [SFTLAB, "run", study, "--runtime", runtime, "--store", store]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    return time.perf_counter() - started, done.stdout.splitlines()


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--study", default="jobs/configs/pocket.yaml")
    parser.add_argument("--runtime", default="jobs/configs/runtimes/laptop-2cpu.yaml")
    parser.add_argument("--budget", type=float, default=720.0, help="seconds")
    parser.add_argument("--keep", help="folder for the store; a temporary one if unset")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        store = options.keep or f"{scratch}/store"
        plan = subprocess.run(
            [SFTLAB, "plan", options.study, "--runtime", options.runtime, "--store", store, "--json"],
            check=True, capture_output=True, text=True,
        )  # fmt: skip
        shown = json.loads(plan.stdout)
        models = sum(step["stage"] == "evaluation" for step in shown["steps"])
        first, lines = run(options.study, options.runtime, store)
        for match in filter(None, map(DONE.fullmatch, lines)):
            print(f"{match['stage']:<22} {match['seconds']:>7} s")
        print(
            f"engine starts {shown['cost']['engine_starts']}, models evaluated {models} (the base model is one)"
        )
        print(
            f"first run   {first:7.1f} s   {first / options.budget:.2f} x the budget of {options.budget:.0f} s"
        )
        second, _ = run(options.study, options.runtime, store)
        print(f"second run  {second:7.1f} s   {second / first:.3f} x the first")


if __name__ == "__main__":
    main()
