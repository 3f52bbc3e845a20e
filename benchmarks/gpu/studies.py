"""Point 6: the tiny study and the tiny survey through Ray to their reports, and tests/gpu.

    python -m benchmarks.gpu.studies --work DIR study|survey
    python -m benchmarks.gpu.studies --work DIR tests [--tests "zero_3 or llama-tied-bf16"]

Wanted of the tests: all of them in under 240 seconds. Each engine test starts engines, so --tests may choose some.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from benchmarks.gpu.bench import Bench, arguments, run

ROOT = Path(__file__).resolve().parents[2]
FILES = {"study": ("run", "tiny.yaml"), "survey": ("survey", "surveys/tiny.yaml")}
SFTLAB = "import sys; from sftlab.cli.app import main; main(sys.argv[1:])"
WANTED_SECONDS = 240


def runtime_of(bench: Bench, store: Path, zero_stage: int = 3) -> dict[str, Any]:
    """A runtime file's content: one engine and one rank, on one GPU that they share with others, or on the CPU."""
    engine: dict[str, Any] = {"engines": 1, "threads": 2}
    training: dict[str, Any] = {"workers": 1, "zero_stage": zero_stage, "threads": 2}
    if not bench.cpu:
        engine = {"engines": 1, "gpus_per_engine": 1, "gpu_memory_utilization": 0.3, "kv_cache_gib": 2}
        training |= {"gpus_per_worker": 1, "threads": 4}
    pocket = {"threads": 2 if bench.cpu else 8}
    return {"store": str(store), "engine": engine, "training": training, "pocket": pocket, "track": False}


def sftlab(bench: Bench, words: list[str], runtime: dict[str, Any]) -> None:
    """Run a command of sftlab with this runtime in a process of its own; its output is this program's."""
    file = Path(runtime["store"]).with_suffix(".runtime.yaml")
    file.write_text(json.dumps(runtime))
    started = time.perf_counter()
    done = subprocess.run([sys.executable, "-c", SFTLAB, *words, "--runtime", str(file)], check=False)
    seconds = round(time.perf_counter() - started, 1)
    bench.row(f"sftlab {words[0]}", file=Path(words[1]).name, exit_code=done.returncode, seconds=seconds)
    assert done.returncode == 0, f"sftlab {words[0]} ended with {done.returncode}"


def tests(bench: Bench, chosen: str) -> None:
    device = "cpu" if bench.cpu else "cuda"
    started = time.perf_counter()
    words = ["-q", "-p", "no:cacheprovider", "tests/gpu", *(["-k", chosen] if chosen else [])]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", *words],
        cwd=ROOT,
        env={**os.environ, "SFTLAB_TEST_DEVICE": device},
        check=False,
        stdout=subprocess.PIPE,
        text=True,
    )
    print(done.stdout, flush=True)
    seconds = round(time.perf_counter() - started, 1)
    last = (done.stdout.strip().splitlines() or [""])[-1]
    bench.row("tests/gpu", device=device, summary=last, seconds=seconds, wanted=f"under {WANTED_SECONDS}")
    assert done.returncode == 0, f"pytest ended with {done.returncode}"


def measure(bench: Bench, options: argparse.Namespace) -> None:
    if options.what == "tests":
        tests(bench, options.tests)
        return
    command, name = FILES[options.what]
    runtime = runtime_of(bench, bench.work / f"store-{options.what}")
    sftlab(bench, [command, str(ROOT / "jobs" / "configs" / name)], runtime)


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("what", choices=(*FILES, "tests"))
    parser.add_argument("--tests", default="", help="an expression of pytest's -k")
    run(parser.parse_args(), measure)


if __name__ == "__main__":
    main()
