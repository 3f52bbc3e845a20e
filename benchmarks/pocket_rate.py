"""The learning rate of the pocket study, chosen on dev among four: a sweep over the rates, and the table that chooses.

    python -m benchmarks.pocket_rate [--store DIR] [--seeds 3]

Each rate fine-tunes the pocket model on the sizes of the pocket study, 25 and 100 facts of every bucket, with every
seed; nothing is restored. The score of a model is the mean of its accuracy on dev in domain and out of domain, the
metric by which sweeps choose. The rate with the highest mean score over all training sets is chosen; the smaller one
where two are equal. A table for each size shows what it would choose alone. Test questions take no part, and their
accuracy is shown beside the choice. The difference of a rate to the chosen one is paired by training set, with a 95 % t
interval. A second run with the same --store finds everything.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING

import yaml

from sftlab.analysis.statistics import over_sets
from sftlab.studies import read_results

if TYPE_CHECKING:
    import pyarrow as pa

ROOT = Path(__file__).parents[1]
SFTLAB = str(Path(sys.executable).parent / "sftlab")
NAME = "pocket-rate"
RATES = (3e-4, 1e-3, 3e-3, 1e-2)
SIZES = (25, 100)  # of jobs/configs/pocket.yaml
DEV, TEST = ("dev", "dev_ood"), ("test", "test_ood")

Scores = Mapping[float, Mapping[str, float]]
"""The score of every training set, by rate and the set's name."""


def sweep_file(seeds: int) -> str:
    """The sweep over the rates."""
    axes = {
        "data": [0, 1, 2, 3, 4],
        "size": list(SIZES),
        "seed": list(range(seeds)),
        "learning_rate": list(RATES),
        "percent": [0],
        "strategy": ["restore"],
    }
    study = str(ROOT / "jobs" / "configs" / "pocket.yaml")
    return yaml.safe_dump({"name": NAME, "study": study, "axes": axes})


def scores_of(accuracy: pa.Table, splits: Sequence[str]) -> Scores:
    """Mean over the splits of the accuracy of every tuned model, from the table `accuracy` of a sweep over rates."""
    found: dict[float, dict[str, dict[str, float]]] = {}
    for row in accuracy.to_pylist():
        if row["percent"] == 0 and row["bucket"] is None and row["split"] in splits:
            rate = float(row["variant"].rpartition("learning_rate=")[2])
            found.setdefault(rate, {}).setdefault(row["cell"], {})[row["split"]] = row["accuracy"]
    return {
        rate: {cell: fmean(by_split[split] for split in splits) for cell, by_split in cells.items()}
        for rate, cells in sorted(found.items())
    }


def of_size(scores: Scores, size: int) -> Scores:
    """The scores of the training sets of one size, by the names of the sets."""
    return {
        rate: {cell: score for cell, score in cells.items() if f"-n{size}-" in cell}
        for rate, cells in scores.items()
    }


def chosen(dev: Scores) -> float:
    """The rate with the highest mean score; the smaller one of equal ones."""
    return max(sorted(dev), key=lambda rate: fmean(dev[rate].values()))


def table(dev: Scores, test: Scores) -> list[str]:
    """The rates as lines of Markdown."""
    best = chosen(dev)
    lines = [
        "| rate | training sets | dev | against the chosen rate, in points | test, which does not choose |",
        "|---|---|---|---|---|",
    ]
    for rate, cells in dev.items():
        found = over_sets([cells[cell] - dev[best][cell] for cell in cells])
        against = "chosen" if rate == best else ""
        if found is not None and rate != best:
            against = f"{100 * found.mean:+.1f} ({100 * found.low:+.1f} to {100 * found.high:+.1f})"
        dev_score, test_score = (100 * fmean(scores[rate].values()) for scores in (dev, test))
        lines.append(f"| {rate:g} | {len(cells)} | {dev_score:.1f} % | {against} | {test_score:.1f} % |")
    return lines


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--runtime", default=str(ROOT / "jobs/configs/runtimes/laptop-2cpu.yaml"))
    parser.add_argument("--store", type=Path, help="store to use or to make; a temporary one if unset")
    parser.add_argument("--seeds", type=int, default=3, help="training sets of each bucket")
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as scratch:
        store, sweep = options.store or Path(scratch) / "store", Path(scratch) / "sweep.yaml"
        sweep.write_text(sweep_file(options.seeds))
        command = [SFTLAB, "sweep", str(sweep), "--runtime", options.runtime, "--store", str(store)]
        subprocess.run([*command, "--set", "runtime.track=false"], check=True)
        accuracy = read_results(store, NAME)["accuracy"]
    dev, test = scores_of(accuracy, DEV), scores_of(accuracy, TEST)
    for size in SIZES:
        print(f"{size} facts:", *table(of_size(dev, size), of_size(test, size)), sep="\n", end="\n\n")
    print("all training sets:", *table(dev, test), sep="\n")
    print(f"chosen on dev: {chosen(dev):g}")


if __name__ == "__main__":
    main()
