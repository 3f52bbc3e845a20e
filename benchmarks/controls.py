"""The cost of the controls of a change beside the plain profile: wall and processor time, in one process.

python -m benchmarks.controls [--layers 8] [--runs 3] [--folder DIR] [--json FILE]

The pair is a Llama-like model of bfloat16 weights and a slightly changed copy. The plain profile finds the
concentration of the change and the cuts of seven percentages, in three passes. The controls of the same pair are the
null of shuffled updates, in three passes, and the change undone by every cut, in one. Target: the null takes at most
twice the time of the plain profile.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.restoration import PERCENTS, make_pair


def timed(work: Callable[[], Any]) -> tuple[float, float, Any]:
    """Wall seconds, processor seconds and the result."""
    wall, processor = time.perf_counter(), time.process_time()
    result = work()
    return time.perf_counter() - wall, time.process_time() - processor, result


def compare(folder: Path, layers: int, runs: int) -> dict[str, float]:
    from sftlab.weights.change_profile import profile, region_sizes
    from sftlab.weights.controls import null_of, undone_by
    from sftlab.weights.cut import Ranking
    from sftlab.weights.search import Search
    from sftlab.weights.shards import Checkpoint
    from sftlab.weights.stream import Progress

    weights = make_pair(folder / "pair", layers)
    base, tuned = folder / "pair" / "base", folder / "pair" / "tuned"
    print(f"pair: {weights:,} bfloat16 weights, {', '.join(PERCENTS)} %")
    found = profile(base, tuned, PERCENTS)  # the files are in the page cache from here on
    times: dict[str, list[tuple[float, float]]] = {"plain": [], "null": [], "undone": []}
    with Checkpoint.open(base) as old, Checkpoint.open(tuned) as new:
        search = Search((old, new), region_sizes(old, old.names, "layers"), Ranking())
        for _ in range(runs):
            times["plain"].append(timed(lambda: profile(base, tuned, PERCENTS))[:2])
            *seconds, null = timed(lambda: null_of(search, found.cuts, 0, Progress(0)))
            times["null"].append((seconds[0], seconds[1]))
            times["undone"].append(timed(lambda: undone_by(search, found.cuts, Progress(0)))[:2])
            print(
                "  " + ", ".join(f"{what} {spent[-1][0]:.2f} s" for what, spent in times.items()), flush=True
            )
    medians = {
        what: [statistics.median(kind) for kind in zip(*spent, strict=True)] for what, spent in times.items()
    }
    figures = {f"{what}_seconds": median[0] for what, median in medians.items()}
    for what in ("null", "undone"):
        figures[f"{what}_ratio"] = medians[what][0] / medians["plain"][0]
        figures[f"{what}_processor_ratio"] = medians[what][1] / medians["plain"][1]
    shares = {"top_1_percent": found.concentration["1"], "top_1_percent_null": null.concentration["1"]}
    return {"weights": weights, **figures, **shares}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--layers", type=int, default=8)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--folder", type=Path, help="where to work (default: a temporary folder)")
    parser.add_argument("--json", type=Path, help="write the figures here too")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="controls-", dir=options.folder) as folder:
        figures = compare(Path(folder), options.layers, options.runs)
    print(f"the null takes {figures['null_ratio']:.2f} times the plain profile (target: at most 2)")
    print(f"the change undone takes {figures['undone_ratio']:.2f} times the plain profile")
    print(
        f"processor time: {figures['null_processor_ratio']:.2f} and {figures['undone_processor_ratio']:.2f} times "
        "(says more on a busy machine)"
    )
    print(
        f"top 1 % of the weights hold {figures['top_1_percent']:.1%} of the relative change, with shuffled updates "
        f"{figures['top_1_percent_null']:.1%}"
    )
    if options.json:
        options.json.write_text(json.dumps(figures, indent=2) + "\n")


if __name__ == "__main__":
    main()
