"""What is wrong with a table of scores, found without being asked: copies, missing cells, scores below chance."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import asdict
from typing import Any

import numpy as np

from sftlab.analysis.score_checks import clearly_below, copied_rows, largest_gap_to_mean, share_below
from sftlab.studies.survey.about import About, ordered
from sftlab.studies.survey.score_table import BASE, Run, ScoreTable

Row = dict[str, Any]
# Below this share of present scores a benchmark is an exception, not a column with gaps.
RARE = 0.5
# A grid with this share of its runs was meant to be complete.
NEARLY = 0.8


def copied_baselines(table: ScoreTable) -> list[Row]:
    """Pairs of base models that share more scores than accident explains, most first."""
    at = table.baselines()
    models = list(at)
    found = copied_rows(table.scores[[at[model] for model in models]], table.scores)
    return [
        {
            "first": models[copy.first],
            "first_row": table.rows[at[models[copy.first]]],
            "second": models[copy.second],
            "second_row": table.rows[at[models[copy.second]]],
            "equal": len(copy.equal),
            "compared": copy.compared,
            "benchmarks": ", ".join(table.benchmarks[column] for column in copy.equal),
            "p": copy.p,
        }
        for copy in found
    ]


def below_chance(table: ScoreTable, about: About) -> list[Row]:
    """For each benchmark whose chance level is known, how many scores are below it, and how many clearly."""
    rows = []
    tuned = np.array([run.data != BASE for run in table.runs])
    for column, name in enumerate(table.benchmarks):
        known = about.benchmarks.get(name)
        if known is None or known.chance is None:
            continue
        scores = table.scores[:, column]
        clearly = clearly_below(known.chance, known.questions) if known.questions else None
        rows.append(
            {
                "benchmark": name,
                "chance": known.chance,
                "scores": int(np.isfinite(scores).sum()),
                "share_below": share_below(scores, known.chance),
                "share_below_base": share_below(scores[~tuned], known.chance),
                "share_clearly_below": None if clearly is None else share_below(scores, clearly),
                "clearly_below": clearly,
            }
        )
    return rows


def missing_scores(table: ScoreTable) -> list[Row]:
    """Scores that a run lacks, of benchmarks that most runs have; runs with the same gaps share a row."""
    present = np.isfinite(table.scores)
    common = present.mean(axis=0) >= RARE
    gaps: dict[tuple[str, str, str, tuple[str, ...]], list[int]] = defaultdict(list)
    for number, run in enumerate(table.runs):
        lacks = tuple(table.benchmarks[column] for column in np.flatnonzero(common & ~present[number]))
        if lacks:
            gaps[run.model, run.method, "" if run.data != BASE else BASE, lacks].append(number)
    return [
        {
            "model": model,
            "method": method or base,
            "runs": len(numbers),
            "benchmarks": len(lacks),
            "missing": ", ".join(lacks),
            "rows": ", ".join(str(table.rows[number]) for number in numbers),
        }
        for (model, method, base, lacks), numbers in gaps.items()
    ]


def rare_benchmarks(table: ScoreTable) -> list[str]:
    """Benchmarks that less than half of the runs have."""
    shares = np.isfinite(table.scores).mean(axis=0)
    return [name for name, share in zip(table.benchmarks, shares, strict=True) if share < RARE]


def missing_runs(table: ScoreTable, about: About) -> list[Row]:
    """Runs on single sets that a nearly complete grid lacks.

    A grid is a method, size and schedule, with all models, sets and epochs that it has anywhere. One that is less
    than `NEARLY` complete was not meant to be complete, and is left out.
    """
    single = about.single_sets(table)
    grids: dict[tuple[str, int, str], set[Run]] = defaultdict(set)
    for run in table.runs:
        if run.data in single:
            grids[run.method, run.size, run.schedule].add(run)
    rows: list[Row] = []
    for (method, size, schedule), present in grids.items():
        wanted = [
            Run(model, data, method, size, epoch, schedule)
            for model in sorted({run.model for run in present})
            for data in ordered({run.data: 0 for run in present}, single)
            for epoch in sorted({run.epoch for run in present})
        ]
        if len(present) >= NEARLY * len(wanted):
            rows += [asdict(run) for run in wanted if run not in present]
    return rows


def wrong_totals(table: ScoreTable, about: About) -> list[Row]:
    """For each benchmark that is said to be the mean of others: the largest gap to that mean."""
    rows = []
    for name, known in about.benchmarks.items():
        if not known.mean_of or not {name, *known.mean_of} <= set(table.benchmarks):
            continue
        columns = [table.benchmarks.index(part) for part in known.mean_of]
        gap = largest_gap_to_mean(table.scores[:, table.benchmarks.index(name)], table.scores[:, columns])
        rows.append({"benchmark": name, "parts": len(known.mean_of), "largest_gap": gap})
    return rows
