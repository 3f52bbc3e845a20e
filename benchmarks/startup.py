"""Start-up: `import sftlab` and `sftlab --help`, against a bare interpreter and a bare `import typer`.

    python -m benchmarks.startup [--runs 10]

Prints the median seconds and the ratios. Targets: 0.3 s and 0.5 s on two cores.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import time
from pathlib import Path


def median_seconds(command: list[str], runs: int) -> float:
    """Median wall time of a whole process, after one run that warms the file cache."""
    taken = []
    for _ in range(runs + 1):
        started = time.perf_counter()
        subprocess.run(command, check=True, capture_output=True)
        taken.append(time.perf_counter() - started)
    return statistics.median(taken[1:])


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--runs", type=int, default=10)
    runs = parser.parse_args().runs
    python = sys.executable
    bare = median_seconds([python, "-c", "pass"], runs)
    package = median_seconds([python, "-c", "import sftlab"], runs)
    typer = median_seconds([python, "-c", "import typer"], runs)
    helping = median_seconds([str(Path(python).parent / "sftlab"), "--help"], runs)
    print(f"import sftlab   {package:.3f} s   {package / bare:.2f} x a bare interpreter ({bare:.3f} s)")
    print(f"sftlab --help   {helping:.3f} s   {helping / typer:.2f} x a bare `import typer` ({typer:.3f} s)")


if __name__ == "__main__":
    main()
