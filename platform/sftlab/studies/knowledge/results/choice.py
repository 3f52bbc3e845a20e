"""Which restore percentage to recommend: chosen on the dev splits, reported on the test splits."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from sftlab.errors import UserError
from sftlab.studies.knowledge.results.tables import BASE, AccuracyRow, ChoiceRow

COLLAPSE_SHARE = 0.5
DEV_SPLITS = ("dev", "dev_ood")
TEST_SPLITS = ("test", "test_ood")

Scores = dict[float, float]  # score in [0, 1] by restore percentage


class Metric(NamedTuple):
    """What makes a dev score: the mean of the accuracies on these splits, and how that is said."""

    splits: tuple[str, ...]
    words: str


# What a search ranks trials by, and a sweep chooses by; a study always takes the first.
METRICS: Mapping[str, Metric] = {
    "dev": Metric(DEV_SPLITS, "mean of in-domain and out-of-domain accuracy"),
    "dev_in_domain": Metric(("dev",), "in-domain accuracy alone"),
    "dev_out_of_domain": Metric(("dev_ood",), "out-of-domain accuracy alone"),
}


def metric_of(name: object) -> Metric:
    """The metric of this name. Raises UserError where there is none."""
    found = METRICS.get(name) if isinstance(name, str) else None
    if found is None:
        raise UserError(f"{name!r} is no metric; known are {', '.join(METRICS)}.")
    return found


def choose(rows: Sequence[AccuracyRow], metric: str = "dev") -> list[ChoiceRow]:
    """The choice of every cell, in their order of appearance, then the common one and the recommended one.

    A model's dev score is that of `dev_scores`: for the metric dev the mean of its in-domain (dev) and
    out-of-domain (dev_ood) accuracies, each the mean of the five buckets. The percentage with
    the highest score is chosen; of equal scores the smaller percentage, then the cell that comes first.
    The common percentage has the highest mean dev score over all cells. Test accuracies never choose.

    Raises UserError where a cell has no dev accuracy, its models were not all asked the same splits, or
    cells have no percentage in common.
    """
    means = means_by_split(rows)
    if not means:
        return []
    scores = {cell: dev_scores(cell, by_split, metric) for cell, by_split in means.items()}
    questions = {cell: _test_questions(rows, cell) for cell in means}
    chosen = [
        _row("cell", cell, best_percent(scores[cell]), [cell], scores, means, questions) for cell in means
    ]
    best = max(chosen, key=lambda row: (row.dev, -row.percent))  # the first of equals
    recommended = _row("recommended", best.cell, best.percent, [str(best.cell)], scores, means, questions)
    common = best_percent(common_scores(scores))
    return [*chosen, _row("common", None, common, list(means), scores, means, questions), recommended]


def dev_scores(cell: str, by_split: Mapping[str, Scores], metric: str = "dev") -> Scores:
    """Dev score by percentage: the mean of those of the metric's splits that the cell was asked.

    Args:
        cell: its name, for messages.
        by_split: accuracies in [0, 1] by split and percentage; splits that were not asked are left out.
        metric: one of METRICS.

    Raises UserError where none of the splits was asked, or models were not all asked the same ones.
    """
    wanted = metric_of(metric).splits
    splits = [by_split[split] for split in wanted if split in by_split]
    if not splits:
        raise UserError(
            f"Cell {cell}: no accuracy on {' or '.join(wanted)}, so no restore percentage can be chosen."
        )
    if any(split.keys() != splits[0].keys() for split in splits) or 0.0 not in splits[0]:
        raise UserError(f"Cell {cell}: every restored model and 0 % must be asked the same dev splits.")
    return {p: math.fsum(split[p] for split in splits) / len(splits) for p in sorted(splits[0])}


def best_percent(scores: Scores) -> float:
    """The percentage with the highest score; of equal scores the smallest percentage."""
    return min(scores, key=lambda percent: (-scores[percent], percent))


def common_scores(scores: Mapping[str, Scores]) -> Scores:
    """Mean score over all cells of every percentage that all cells have."""
    shared = set.intersection(*(set(by_percent) for by_percent in scores.values()))
    if not shared:
        raise UserError("The cells have no restore percentage in common.")
    return {p: math.fsum(by[p] for by in scores.values()) / len(scores) for p in sorted(shared)}


def collapse_percent(scores: Scores) -> float | None:
    """The smallest percentage from which on every score is below half of the tuned model's (0 %); or None."""
    collapse = None
    for percent in sorted(scores, reverse=True):
        if percent == 0.0 or scores[percent] >= COLLAPSE_SHARE * scores[0.0]:
            break
        collapse = percent
    return collapse


def _row(
    scope: str,
    cell: str | None,
    percent: float,
    over: Sequence[str],
    scores: Mapping[str, Scores],
    means: Mapping[str, Mapping[str, Scores]],
    questions: Mapping[str, int],
) -> ChoiceRow:
    def accuracy(split: str, at: float) -> float | None:
        if any(at not in means[c].get(split, {}) for c in over):
            return None
        return math.fsum(means[c][split][at] for c in over) / len(over)

    dev = common_scores({c: scores[c] for c in over})
    in_domain, out_of_domain = TEST_SPLITS
    return ChoiceRow(
        scope=scope,
        cell=cell,
        percent=percent,
        dev=dev[percent],
        dev_tuned=dev[0.0],
        test=accuracy(in_domain, percent),
        test_tuned=accuracy(in_domain, 0.0),
        test_ood=accuracy(out_of_domain, percent),
        test_ood_tuned=accuracy(out_of_domain, 0.0),
        questions=max(questions[c] for c in over),
        collapse_percent=collapse_percent(dev),
    )


def means_by_split(rows: Iterable[AccuracyRow]) -> dict[str, dict[str, Scores]]:
    """Mean-of-buckets accuracy by cell, split and percentage; the base model is left out."""
    means: dict[str, dict[str, Scores]] = defaultdict(lambda: defaultdict(dict))
    for row in rows:
        if row.bucket is None and row.percent is not None and row.cell != BASE:
            means[row.cell][row.split][row.percent] = row.accuracy
    return {cell: dict(by_split) for cell, by_split in means.items()}


def _test_questions(rows: Iterable[AccuracyRow], cell: str) -> int:
    return sum(
        row.questions
        for row in rows
        if row.cell == cell and row.bucket is None and row.percent == 0.0 and row.split in TEST_SPLITS
    )
