"""`make fuzz`: many damaged inputs for every reader, each reader in a process of its own with bounded memory.

Each input is made from `SEED/reader/number`, so that a finding is repeated by --reader NAME --only NUMBER. An input has
ten seconds of computing; what a process may hold beyond its start is bounded by the system, so that a header which
claims 2**60 bytes and is believed shows as a MemoryError.
"""

from __future__ import annotations

import argparse
import faulthandler
import logging
import os
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

from sftlab.errors import UserError
from tests.fuzz.reader import Reader
from tests.fuzz.readers import all_readers

SECONDS = 10  # of one input
WATCHED = 100  # inputs between two looks at a process that may hang outside of Python
MEMORY = 1 << 30  # bytes of address space beyond what the process holds after its first valid input


class TooLong(BaseException):
    """An input took longer than SECONDS; no handler of a reader catches it."""


@contextmanager
def deadline(seconds: float = SECONDS) -> Iterator[None]:
    """Raises TooLong after so many seconds of computing, or six times as many of waiting, once back in Python."""

    def stop(_signal: int, _frame: FrameType | None) -> None:
        raise TooLong

    before = {name: signal.signal(name, stop) for name in (signal.SIGPROF, signal.SIGALRM)}
    signal.setitimer(signal.ITIMER_PROF, seconds)
    signal.setitimer(signal.ITIMER_REAL, 6 * seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.setitimer(signal.ITIMER_REAL, 0)
        for name, handler in before.items():
            signal.signal(name, handler)


def outcome(reader: Reader, data: bytes, folder: Path, seconds: float = SECONDS) -> str | None:
    """None where the reader returned, "refused" where it raised UserError; any other exception passes."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    try:
        with deadline(seconds):
            reader.read(data, folder)
    except UserError as error:
        assert str(error), "an empty message"
        return "refused"
    return None


def memory_of(process: str = "self") -> int:
    """Bytes of address space of a process."""
    return int(Path(f"/proc/{process}/statm").read_text().split()[0]) * resource.getpagesize()


def fuzz(reader: Reader, numbers: Sequence[int], seed: int) -> int:
    """Feed the reader; prints figures and findings. Returns the number of findings."""
    folder = Path(tempfile.mkdtemp(prefix="fuzz-", dir="/dev/shm" if Path("/dev/shm").is_dir() else None))
    found: Counter[str] = Counter()
    first: dict[str, tuple[int, str]] = {}
    refused = 0
    logging.getLogger("sftlab").setLevel(logging.ERROR)  # warnings of a damaged input, for each input
    warnings.simplefilter("ignore")
    try:
        for data in reader.seeds:
            if outcome(reader, data, folder / "in", 60 * SECONDS) is not None:  # imports too
                raise AssertionError(f"{reader.name}: a valid input is refused")
        limit = memory_of() + MEMORY
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
        started = shown = time.monotonic()
        for done, number in enumerate(numbers, start=1):
            if (
                done % WATCHED == 1
            ):  # where even the interpreter hangs, the process ends and prints its stacks
                faulthandler.dump_traceback_later(6 * WATCHED * SECONDS, exit=True)
            data = reader.input(f"{seed}/{reader.name}/{number}")
            try:
                refused += outcome(reader, data, folder / "in") == "refused"
            except (Exception, TooLong) as error:
                key = place(error)
                found[key] += 1
                first.setdefault(key, (number, str(error)[:120]))
                if len(numbers) == 1:
                    traceback.print_exc()
                    print(repr(data[:2000]))
            if time.monotonic() - shown > 60:
                shown = time.monotonic()
                print(f"  {reader.name}: {done:,} of {len(numbers):,}", flush=True)
        faulthandler.cancel_dump_traceback_later()
        rate = len(numbers) / (time.monotonic() - started)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(
        f"{reader.name:<20} {len(numbers):>8,} inputs, {refused / len(numbers):4.0%} refused, {rate:7,.0f}/s, "
        f"peak {peak:5,.0f} MB, {len(found)} findings",
        flush=True,
    )
    for key, count in found.most_common():
        number, text = first[key]
        again = f"--reader {reader.name!r} --only {number} --seed {seed}"
        print(f"  FOUND {key}: {text!r} ({count} times; {again})", flush=True)
    return len(found)


def place(error: BaseException) -> str:
    """The kind of an exception and the last lines of this project that it passed through."""
    frames = [
        f for f in traceback.extract_tb(error.__traceback__) if "/sftlab/" in f.filename
    ] or traceback.extract_tb(error.__traceback__)
    where = " < ".join(f"{Path(f.filename).name}:{f.lineno}" for f in reversed(frames[-3:]))
    return f"{type(error).__name__} at {where}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--inputs", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--reader", action="append", help="names of readers; all if left out")
    parser.add_argument("--only", type=int, help="one input alone, with its traceback")
    asked = parser.parse_args()
    names = asked.reader or [reader.name for reader in all_readers()]
    if len(names) == 1:
        reader = next(reader for reader in all_readers() if reader.name == names[0])
        numbers = [asked.only] if asked.only is not None else range(asked.inputs)
        sys.exit(min(fuzz(reader, numbers, asked.seed), 1))
    failed = 0
    for name in names:
        command = [
            sys.executable,
            "-m",
            "tests.fuzz.run",
            "--inputs",
            str(asked.inputs),
            "--seed",
            str(asked.seed),
            "--reader",
            name,
        ]
        failed += (
            subprocess.run(command, check=False, env={**os.environ, "OMP_NUM_THREADS": "1"}).returncode != 0
        )
    print(f"{len(names)} readers, {failed} with findings")
    sys.exit(min(failed, 1))


if __name__ == "__main__":
    main()
