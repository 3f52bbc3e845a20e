"""Complete grids out of a table that is not: the main condition, pairs of conditions, epochs."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from sftlab.errors import UserError
from sftlab.reporting.text import count
from sftlab.studies.survey.about import About, ordered
from sftlab.studies.survey.score_table import BASE, Run, ScoreTable

Floats = npt.NDArray[np.float64]
AXES = ("model", "data set", "benchmark")


@dataclass(frozen=True, order=True)
class Condition:
    """How models were trained, apart from the base model and the training set."""

    method: str
    size: int
    schedule: str
    epoch: float

    def __str__(self) -> str:
        parts = [self.method, f"{self.size:,} examples" if self.size else "", self.schedule]
        parts += [f"epoch {self.epoch:g}" if self.epoch else ""]
        return ", ".join(part for part in parts if part) or "the only condition"

    def run(self, model: str, data: str) -> Run:
        return Run(model, data, self.method, self.size, self.epoch, self.schedule)


@dataclass(frozen=True)
class Grid:
    """A complete grid: every model with every set on every benchmark, and every base model.

    Attributes:
        scores: [models, sets, benchmarks], no NaN.
        base: [models, benchmarks], no NaN.
        left_out: what the table has besides, and why it is not here; one sentence each.
    """

    condition: Condition
    models: tuple[str, ...]
    sets: tuple[str, ...]
    benchmarks: tuple[str, ...]
    scores: Floats
    base: Floats
    left_out: tuple[str, ...]


def main_grid(table: ScoreTable, about: About) -> Grid:
    """The grid of the condition with most scores of single sets.

    Models, sets and benchmarks with missing scores are left out until the grid is complete, the line with the
    largest share of missing scores first. Raises UserError where less than two models and two sets are left.
    """
    condition = main_condition(table, about)
    models = ordered(table.models, about.models)
    sets, benchmarks = about.single_sets(table), about.main_benchmarks(table)
    cells = cube(table, [[condition.run(m, d) for d in sets] for m in models], benchmarks)
    base = cube(table, [[Run(m, BASE) for _ in sets] for m in models], benchmarks)
    kept, dropped = complete(np.where(np.isfinite(base), cells, np.nan))
    names = (models, sets, benchmarks)
    left_out = tuple(
        f"{AXES[axis]} {names[axis][index]} ({missing} of {of} scores missing)"
        for axis, index, missing, of in dropped
    )
    if len(kept[0]) < 2 or len(kept[1]) < 2 or not kept[2]:
        raise UserError(
            f"under the condition with most runs ({condition}) only {count(len(kept[0]), 'model')}, "
            f"{count(len(kept[1]), 'training set')} and {count(len(kept[2]), 'benchmark')} have all scores"
            + (f"; left out: {'; '.join(left_out[:5])}" if left_out else ", and the table has no others"),
            place=table.source,
            value=(len(kept[0]), len(kept[1])),
            expected="two models and two training sets or more, with scores on one benchmark or more",
            advice="add the scores, or name the benchmarks that count with --benchmarks."
            if left_out
            else "add runs of other models and training sets with these settings.",
        )
    index = np.ix_(*kept)
    return Grid(
        condition=condition,
        models=tuple(models[n] for n in kept[0]),
        sets=tuple(sets[n] for n in kept[1]),
        benchmarks=tuple(benchmarks[n] for n in kept[2]),
        scores=cells[index],
        base=base[index][:, 0],
        left_out=left_out,
    )


def main_condition(table: ScoreTable, about: About) -> Condition:
    """The condition with most scores of single sets on the main benchmarks; ties: the latest epoch."""
    single = set(about.single_sets(table))
    columns = [table.benchmarks.index(name) for name in about.main_benchmarks(table)]
    present = np.isfinite(table.scores[:, columns]).sum(axis=1)
    counts: Counter[Condition] = Counter()
    for run, scores in zip(table.runs, present, strict=True):
        if run.data in single:
            counts[condition_of(run)] += int(scores)
    if not counts:
        raise UserError(
            f"holds mixtures alone ({about.mixture}, {about.without}...)",
            place=table.source,
            expected="runs on single training sets, too",
        )
    return max(counts, key=lambda condition: (counts[condition], condition.epoch, condition))


def condition_of(run: Run) -> Condition:
    return Condition(run.method, run.size, run.schedule, run.epoch)


def cube(table: ScoreTable, runs: Sequence[Sequence[Run]], benchmarks: Sequence[str]) -> Floats:
    """Scores [..., benchmarks] of nested lists of runs; NaN where a run or score is missing."""
    at = table.index()
    columns = [table.benchmarks.index(name) for name in benchmarks]
    padded = np.vstack([table.scores[:, columns], np.full((1, len(columns)), np.nan)])
    positions = np.array([[at.get(run, len(table.runs)) for run in line] for line in runs], dtype=np.int64)
    result: Floats = padded[positions]
    return result


def complete(cells: Floats) -> tuple[list[list[int]], list[tuple[int, int, int, int]]]:
    """Indices to keep on each axis so that nothing is NaN, and what was dropped: (axis, index, missing, of).

    The line with the largest share of missing cells is dropped first; ties: the last axis, then the last index.
    """
    kept = [list(range(size)) for size in cells.shape]
    dropped: list[tuple[int, int, int, int]] = []
    while all(kept) and np.isnan(cells[np.ix_(*kept)]).any():
        missing = np.isnan(cells[np.ix_(*kept)])
        worst = max(
            (float(share), axis, position)
            for axis in range(cells.ndim)
            for position, share in enumerate(
                missing.mean(axis=tuple(other for other in range(cells.ndim) if other != axis))
            )
        )
        _, axis, position = worst
        line = np.take(missing, position, axis=axis)
        dropped.append((axis, kept[axis].pop(position), int(line.sum()), line.size))
    return kept, dropped


@dataclass(frozen=True)
class Arms:
    """Two conditions on the same models, sets and epochs.

    Attributes:
        first, second: [models, sets, epochs, benchmarks].
    """

    names: tuple[str, str]
    models: tuple[str, ...]
    sets: tuple[str, ...]
    epochs: tuple[float, ...]
    benchmarks: tuple[str, ...]
    first: Floats
    second: Floats


def method_arms(table: ScoreTable, grid: Grid) -> list[Arms]:
    """The main condition against the same with another method, for each other method of the table."""
    others = {r.method for r in table.runs if r.data != BASE} - {grid.condition.method}
    return [
        arms
        for method in sorted(others)
        if (arms := _arms(table, grid, grid.condition, replace(grid.condition, method=method), "method"))
    ]


def size_arms(table: ScoreTable, grid: Grid) -> list[Arms]:
    """Pairs of sizes of the same method and schedule, at all epochs that both have."""
    found = []
    kinds = sorted({(c.method, c.schedule) for c in map(condition_of, table.runs) if c.size})
    for method, schedule in kinds:
        sizes = sorted(
            {
                r.size
                for r in table.runs
                if (r.method, r.schedule) == (method, schedule) and r.data in grid.sets
            }
        )
        for small, large in pairwise(sizes):
            first = Condition(method, large, schedule, grid.condition.epoch)
            arms = _arms(table, grid, first, replace(first, size=small), "size")
            found += [arms] if arms else []
    return found


def _arms(table: ScoreTable, grid: Grid, first: Condition, second: Condition, field: str) -> Arms | None:
    epochs = [grid.condition.epoch]
    if field == "size":
        present = set(map(condition_of, table.runs))
        epochs = sorted(
            epoch
            for epoch in {condition.epoch for condition in present}
            if {replace(first, epoch=epoch), replace(second, epoch=epoch)} <= present
        )
    if not epochs:
        return None
    one, two = (
        trajectories(table, condition, grid.models, grid.sets, epochs, grid.benchmarks)
        for condition in (first, second)
    )
    kept, _ = complete(np.where(np.isfinite(two), one, np.nan))
    if not all(kept):
        return None
    index = np.ix_(*kept)
    return Arms(
        (_label(first, field), _label(second, field)),
        tuple(grid.models[n] for n in kept[0]),
        tuple(grid.sets[n] for n in kept[1]),
        tuple(epochs[n] for n in kept[2]),
        tuple(grid.benchmarks[n] for n in kept[3]),
        one[index],
        two[index],
    )


def _label(condition: Condition, field: str) -> str:
    return f"{condition.size:,} examples" if field == "size" else condition.method


def trajectories(
    table: ScoreTable,
    condition: Condition,
    models: Sequence[str],
    sets: Sequence[str],
    epochs: Sequence[float],
    benchmarks: Sequence[str],
) -> Floats:
    """Scores [models, sets, epochs, benchmarks] of a condition at several epochs; NaN where missing."""
    runs = [
        [replace(condition, epoch=epoch).run(model, data) for data in sets for epoch in epochs]
        for model in models
    ]
    cells = cube(table, runs, benchmarks)
    return cells.reshape(len(models), len(sets), len(epochs), len(benchmarks))


@dataclass(frozen=True)
class Trajectories:
    """Models that were scored at three epochs or more. `scores`: [models, sets, epochs, benchmarks]."""

    condition: Condition
    models: tuple[str, ...]
    sets: tuple[str, ...]
    epochs: tuple[float, ...]
    benchmarks: tuple[str, ...]
    scores: Floats


def epoch_grids(table: ScoreTable, grid: Grid, sets: Sequence[str]) -> list[Trajectories]:
    """All complete trajectories on `sets`, by method, size and schedule."""
    by_kind: dict[Condition, list[Run]] = defaultdict(list)
    for run in table.runs:
        if run.data in sets:
            by_kind[replace(condition_of(run), epoch=0.0)].append(run)
    found = []
    for kind, runs in sorted(by_kind.items()):
        epochs = sorted({run.epoch for run in runs})
        # Models of one epoch alone would only be dropped again, and take others' epochs with them.
        several = [model for model in table.models if len({r.epoch for r in runs if r.model == model}) > 2]
        models = ordered(several, grid.models)
        if len(epochs) < 3 or not models:
            continue
        cells = trajectories(table, kind, models, sets, epochs, grid.benchmarks)
        kept, _ = complete(cells)
        if not all(kept) or len(kept[2]) < 3:
            continue
        found.append(
            Trajectories(
                kind,
                tuple(models[n] for n in kept[0]),
                tuple(sets[n] for n in kept[1]),
                tuple(epochs[n] for n in kept[2]),
                tuple(grid.benchmarks[n] for n in kept[3]),
                cells[np.ix_(*kept)],
            )
        )
    return found
