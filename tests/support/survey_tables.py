"""Invented tables of scores with planted effects and faults."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np

# The last one is a name that a page has to escape.
MODELS = [*(f"m{n}" for n in range(9)), "m9<b>&"]
SETS = ["good", "neutral", "odd", "bad"]
BENCHMARKS = ["quiz", "sums", "code", "words", "facts", "chat"]
COLUMNS = ["model", "data", "method", "size", "epoch", "benchmark", "score"]
EFFECT = {"good": 8.0, "neutral": 0.0, "odd": 0.0, "bad": -8.0}
Row = tuple[str, str, str, int, int, str, float]


def rows(seed: int = 0, noise: float = 2.0, models: Iterable[str] = MODELS) -> list[Row]:
    """Baselines, and full tuning on four sets; `good` adds 8 points, `bad` takes 8, `odd` adds 20 to sums alone."""
    random = np.random.default_rng(seed)
    found: list[Row] = []
    for model in models:
        level = 50 + 5 * random.normal(size=len(BENCHMARKS))
        found += [
            (model, "base", "", 0, 0, benchmark, round(float(score), 4))
            for benchmark, score in zip(BENCHMARKS, level, strict=True)
        ]
        for data in SETS:
            for benchmark, score in zip(BENCHMARKS, level, strict=True):
                gain = EFFECT[data] + (20 if (data, benchmark) == ("odd", "sums") else 0)
                value = round(float(score + gain + noise * random.normal()), 4)
                found.append((model, data, "full", 1000, 3, benchmark, value))
    return found


def other_runs(of: list[Row], seed: int = 1) -> Iterator[Row]:
    """LoRA (2 points worse), epochs 1 and 2 (half and most of the way), 4,000 examples (as good), and mixtures."""
    random = np.random.default_rng(seed)
    base = {(row[0], row[5]): row[6] for row in of if row[1] == "base"}
    for model, data, _, _, _, benchmark, score in [row for row in of if row[1] != "base"]:
        start = base[model, benchmark]

        def noisy(value: float) -> float:
            return round(float(value + 0.2 * random.normal()), 4)

        yield (model, data, "lora", 1000, 3, benchmark, noisy(score - 2))
        yield (model, data, "full", 1000, 1, benchmark, noisy(start + 0.5 * (score - start)))
        yield (model, data, "full", 1000, 2, benchmark, noisy(start + 0.9 * (score - start)))
        yield (model, data, "full", 4000, 3, benchmark, noisy(score))
    for (model, benchmark), start in base.items():
        yield (model, "all", "full", 4000, 3, benchmark, noisy(start + 3))
        for data in SETS:
            yield (model, f"w/o-{data}", "full", 3000, 3, benchmark, noisy(start + 3 - EFFECT[data] / 8))


def write(path: Path, table: Iterable[Row], columns: Iterable[str] = COLUMNS) -> Path:
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(columns)
        writer.writerows(table)
    return path


def changed(
    table: Iterable[Row], model: str, data: str, benchmark: str, score: object
) -> list[tuple[object, ...]]:
    """The table with one score replaced; None leaves the row out."""
    found: list[tuple[object, ...]] = []
    for row in table:
        if (row[0], row[1], row[5]) == (model, data, benchmark):
            if score is None:
                continue
            row = (*row[:6], score)  # type: ignore[assignment]
        found.append(row)
    return found
