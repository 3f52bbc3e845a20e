"""Runs measuring programs with time limits: one of three calls on a machine that is lent for minutes.

    python3 -m benchmarks.gpu.call 1 --work DIR --archives ARCHIVES/p0 --data data/entity_questions.zip
    python3 -m benchmarks.gpu.call 2 --work DIR --archives ARCHIVES/p1
    python3 -m benchmarks.gpu.call 3 --work DIR --data data/entity_questions.zip --seconds 420

Needs nothing but Python until the archives of `bundle` are unpacked. Steps of a group run side by side on a GPU, and
one after another with --cpu, where each has three times its limit. --only and --skip choose steps, --seconds limits the
whole call. The output of a step is in DIR/logs, and its rows of results are printed and in DIR/results.jsonl. The exit
code is the number of steps that failed.
"""

from __future__ import annotations

import argparse
import os
import re
import signal
import subprocess
import sys
import tarfile
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO

ROOT = Path(__file__).resolve().parents[2]
SITE = ROOT / "site"  # where packages are unpacked, one folder for each vLLM and one for all others
PROJECT = "project.tar.xz"  # holds this program
# What steps import, other than the standard library.
MODULES = (
    "torch transformers peft pyarrow safetensors numpy pandas scipy sklearn matplotlib PIL cv2 vllm ray deepspeed "
    "pydantic typer jinja2 fastapi openai aiohttp grpc google.protobuf requests msgpack einops "
    "prometheus_client tiktoken sentencepiece pytest"
)
MARK = "##"
MEASURED = "(wanted: at least"  # of `throughput`, whose exit code says whether the rate is reached
SLOWER = 3  # factor on the limits with --cpu
GRACE = 1.0
OFFLINE = {
    "HF_HUB_OFFLINE": "1",
    "TRANSFORMERS_OFFLINE": "1",
    "PYTHONUNBUFFERED": "1",
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_memory_monitor_refresh_ms": "0",  # a RAM disk counts as used memory
}


FIND = """
import sys
from importlib.util import find_spec

def found(name):
    try:
        return find_spec(name) is not None
    except ModuleNotFoundError:  # of the parent
        return False

print(*[name for name in sys.argv[1:] if not found(name)])
"""


@dataclass(frozen=True)
class Step:
    """A program with its arguments, and its limit in seconds on a GPU."""

    label: str
    words: str
    limit: float


THROUGHPUT = "throughput {what} --model {work}/models/llama-base --facts {work}/facts --repeats 1 {small}"
CALLS: dict[int, list[list[Step]]] = {
    1: [
        [Step("inputs", "inputs {data}", 110)],
        [Step("restore", "restore", 90)],
    ],
    2: [
        [Step("engine", "engine --swaps", 240)],
        [Step("scoring", THROUGHPUT.replace("{what}", "scoring --limit 96"), 150)],
        [Step("defaults", "engine --defaults", 120)],
    ],
    3: [
        [Step("zero-3", THROUGHPUT.replace("{what}", "training --limit 512 --zero-stage 3"), 120)],
        [Step("zero-2", THROUGHPUT.replace("{what}", "training --limit 512 --zero-stage 2"), 100)],
        [Step("torch", THROUGHPUT.replace("{what}", "torch --limit 512 --zero-stage 2"), 100)],
        [
            Step("resume", "training --zero 3", 150),
            Step("swaps-qwen", "swaps --model qwen", 120),
            Step("fresh-tuned", "swaps --fresh tuned", 120),
            Step("study", "studies study", 240),
        ],
        [
            Step("resume-long", "training --zero 2 --long", 150),
            Step("fresh-qwen", "swaps --model qwen --fresh tuned", 120),
            Step("fresh-restored", "swaps --fresh restored", 120),
            Step("texts", "texts", 150),
        ],
        [
            Step("survey", "studies survey", 240),
            Step("real-facts", "real_facts {data}", 240),
            Step("tests", "studies tests", 240),
        ],
    ],
}


def steps_of(call: int, only: list[str], skip: list[str]) -> list[list[Step]]:
    """The groups of a call with the chosen steps."""
    groups = [
        [step for step in group if (not only or step.label in only) and step.label not in skip]
        for group in CALLS[call]
    ]
    return [group for group in groups if group]


def unpack(archives: Path, site: Path) -> None:
    """Unpack the archives of packages: vllm-VERSION*.tar.xz below vllm-VERSION, others below packages.

    The folders are filled side by side, and each by one archive after another: two that make the same folder at once
    would fail.
    """
    files: dict[Path, list[Path]] = {}
    for file in sorted(archives.glob("*.tar.xz")):
        name = "-".join(file.name.removesuffix(".tar.xz").split("-")[:2])
        if file.name != PROJECT:
            files.setdefault(site / (name if name.startswith("vllm-") else "packages"), []).append(file)

    def fill(target: Path) -> None:
        target.mkdir(parents=True, exist_ok=True)
        for file in files[target]:
            with tarfile.open(file, "r:xz") as archive:
                archive.extractall(target, filter="data")

    with ThreadPoolExecutor() as pool:
        list(pool.map(fill, files))


def search_path(site: Path, vllm: str | None) -> list[str]:
    """Folders of modules: the chosen vLLM or the newest, other packages, the project, and what its tests share."""
    found = sorted(
        site.glob(f"vllm-{vllm or '*'}"), key=lambda path: [int(n) for n in re.findall(r"\d+", path.name)]
    )
    unpacked = [*found[-1:], site / "packages"] if site.is_dir() else []
    return [str(path) for path in (*unpacked, ROOT / "platform", ROOT, ROOT / "tests" / "ray")]


def lacking(environment: dict[str, str], modules: list[str]) -> list[str]:
    """Modules that steps could not import; vLLM comes with the second transfer."""
    words = [sys.executable, "-c", FIND, *modules]
    return subprocess.run(words, check=True, capture_output=True, text=True, env=environment).stdout.split()


class Running:
    """A step under way, in a process group of its own."""

    def __init__(self, step: Step, words: list[str], log: Path, environment: dict[str, str]) -> None:
        self.step, self.log, self.started = step, log, time.monotonic()
        self._file: IO[bytes] = log.open("wb")
        self._process = subprocess.Popen(
            words,
            stdout=self._file,
            stderr=subprocess.STDOUT,
            env=environment,
            start_new_session=True,
            cwd=ROOT,
        )

    def finish(self, limit: float) -> bool:
        """Wait for the end or for the limit, end what is left of the step, print its rows; whether it went well."""
        left = max(GRACE, limit - (time.monotonic() - self.started))
        try:
            code: int | str = self._process.wait(left)
        except subprocess.TimeoutExpired:
            code = "over its limit"
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        self._file.close()
        return self._show(code)

    def _show(self, code: int | str) -> bool:
        lines = self.log.read_text(errors="replace").splitlines()
        seconds = time.monotonic() - self.started
        measured = code == 1 and any(MEASURED in line for line in lines)
        print(f"<- {self.step.label}: {code}, {seconds:.0f} s", flush=True)
        for line in lines:
            if line.startswith(MARK) or MEASURED in line:
                print(line[:700], flush=True)
        if code != 0:
            print("\n".join(f"   {line[:300]}" for line in lines[-15:]), flush=True)
        return code == 0 or measured


def run(groups: list[list[Step]], options: argparse.Namespace) -> list[str]:
    """Run all groups; returns the labels of the steps that failed."""
    logs = options.work / "logs"
    logs.mkdir(parents=True, exist_ok=True)
    environment = {**os.environ, **OFFLINE, "TMPDIR": str(options.work / "tmp")}
    environment["PYTHONPATH"] = os.pathsep.join(search_path(options.site, options.vllm))
    Path(environment["TMPDIR"]).mkdir(exist_ok=True)
    if lacks := lacking(environment, MODULES.split()):
        print(f"not installed: {', '.join(lacks)}", flush=True)
    end = time.monotonic() + options.seconds
    factor = SLOWER if options.cpu else 1
    failed = []

    def begin(step: Step) -> Running:
        data = f"--data {options.data}" if options.data else ""
        small = "--gpus 0 --max-model-len 128 --limit 64 --samples 1" if options.cpu else "--threads 4"
        name, *rest = step.words.format(work=options.work, data=data, small=small).split()
        words = [sys.executable, "-m", f"benchmarks.gpu.{name}", *rest]
        if name != "throughput":
            words += ["--work", str(options.work), *(["--cpu"] if options.cpu else [])]
        print(f"-> {step.label}", flush=True)
        return Running(step, words, logs / f"{step.label}.txt", environment)

    def finish(running: Running) -> None:
        if not running.finish(min(running.step.limit * factor, end - running.started)):
            failed.append(running.step.label)

    for group in groups:
        if time.monotonic() >= end:
            print(f"no time left for {', '.join(step.label for step in group)}", flush=True)
            failed += [step.label for step in group]
        elif options.cpu:
            for step in group:
                finish(begin(step))
        else:
            for running in [begin(step) for step in group]:
                finish(running)
    return failed


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("call", type=int, choices=CALLS)
    parser.add_argument(
        "--work", type=Path, required=True, help="folder for models and results, on a RAM disk"
    )
    parser.add_argument("--archives", type=Path, help="folder of archives to unpack first")
    parser.add_argument("--site", type=Path, default=SITE, help="folder to unpack them to")
    parser.add_argument("--vllm", help="version, where several are unpacked")
    parser.add_argument("--data", type=Path, help="zip of EntityQuestions; without it facts are invented")
    parser.add_argument("--only", nargs="+", default=[], help="labels of steps")
    parser.add_argument("--skip", nargs="+", default=[], help="labels of steps")
    parser.add_argument("--seconds", type=float, default=3600.0, help="limit of the whole call")
    parser.add_argument("--cpu", action="store_true", default=os.environ.get("CPU") == "1")
    options = parser.parse_args()
    options.work = options.work.resolve()
    options.work.mkdir(parents=True, exist_ok=True)
    if options.data:
        options.data = options.data.resolve()
    if options.archives:
        unpack(options.archives, options.site)
    failed = run(steps_of(options.call, options.only, options.skip), options)
    print(f"failed: {', '.join(failed)}" if failed else "all steps ended well", flush=True)
    sys.exit(len(failed))


if __name__ == "__main__":
    main()
