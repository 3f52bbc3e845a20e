"""The slowest tests of a run and its processor time: `python -m benchmarks.slowest_tests PYTEST-ARGUMENTS`.

Seconds of a test are those of its call, its fixtures and their end; a fixture counts for the test that makes it.
Processor time is that of pytest and of the processes that it started and that have ended: of Ray's it holds a part.
"""

from __future__ import annotations

import os
import platform
import sys
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

import pytest

SHOWN = 10


@dataclass
class Seconds:
    """Collects what pytest reports of each test, also of those that run in processes of xdist."""

    of: Counter[str] = field(default_factory=Counter)
    outcomes: Counter[str] = field(default_factory=Counter)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        self.of[report.nodeid] += report.duration
        if report.when == "call" or not report.passed:
            self.outcomes[report.outcome] += 1


def table(seconds: Counter[str], shown: int = SHOWN) -> str:
    """The slowest tests, as a table in Markdown."""
    rows = [f"| {value:.1f} | `{name}` |" for name, value in seconds.most_common(shown)]
    return "\n".join(["| seconds | test |", "|---|---|", *rows])


def processor_seconds() -> float:
    """Of this process and of those it started that have ended."""
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system


def main(arguments: Sequence[str]) -> int:
    seconds, started = Seconds(), time.monotonic()
    code = pytest.main(list(arguments), plugins=[seconds])
    print(table(seconds.of))
    print(f"\n{', '.join(f'{count} {outcome}' for outcome, count in sorted(seconds.outcomes.items()))}")
    print(f"{time.monotonic() - started:.0f} s, {processor_seconds():.0f} s of processors")
    print(f"{os.cpu_count()} processors, load {os.getloadavg()[2]:.1f}, Python {platform.python_version()}")
    return int(code)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
