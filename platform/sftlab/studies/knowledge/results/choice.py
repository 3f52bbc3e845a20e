"""Which percentage and training sets to recommend: chosen on the dev splits, reported on the test splits."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import NamedTuple

from sftlab.errors import UserError
from sftlab.studies.knowledge.results.rows import BASE, AccuracyRow, ChoiceRow, GroupRow, fullest

COLLAPSE_SHARE = 0.5
DEV_SPLITS = ("dev", "dev_ood")
TEST_SPLITS = ("test", "test_ood")

Scores = dict[float, float]  # score in [0, 1] by restore percentage


class Metric(NamedTuple):
    """What makes a dev score: the mean of the accuracies on these splits, and how that is said."""

    splits: tuple[str, ...]
    words: str


DEV = "dev"  # the default
# What a search ranks trials by, and choices of sweeps and studies are made by.
METRICS: Mapping[str, Metric] = {
    DEV: Metric(DEV_SPLITS, "mean of in-domain and out-of-domain accuracy"),
    "dev_in_domain": Metric(("dev",), "in-domain accuracy alone"),
    "dev_out_of_domain": Metric(("dev_ood",), "out-of-domain accuracy alone"),
}


def metric_of(name: object) -> Metric:
    """The metric of this name. Raises UserError where there is none."""
    found = METRICS.get(name) if isinstance(name, str) else None
    if found is None:
        raise UserError(f"{name!r} is no metric", value=name, expected=f"one of {', '.join(METRICS)}")
    return found


class Members(NamedTuple):
    """A group of training sets to choose for: its name, and the cells that differ in their seed alone."""

    variant: str
    strategy: str
    train_bucket: str
    size: int
    cells: Sequence[str]


def choose(groups: Sequence[Members], rows: Iterable[GroupRow], metric: str = "dev") -> list[ChoiceRow]:
    """The choice of every group, then the best group of every variant and strategy, then the best of all.

    All of them by the dev score of the metric (`dev_scores`), each split's score the mean over the buckets and the
    group's models. Only percentages that all training sets of the group have take part. Of the groups of a
    variant, of a strategy and of all only those with as many training sets as the fullest of them compete, so
    that one lucky set does not beat the mean of several. Of equal dev scores the smaller percentage wins, then
    the group that comes first. Test accuracies never choose.

    Raises UserError where a group has no dev accuracy or its models were not all asked the same splits.
    """
    means: dict[tuple[str, str, int], dict[str, dict[float, GroupRow]]] = defaultdict(
        lambda: defaultdict(dict)
    )
    for row in rows:
        if row.bucket is None:
            means[row.variant, row.train_bucket, row.size][row.split][row.percent] = row
    chosen = [
        _of_group(group, found, metric) for group in groups if (found := means.get(group[0:1] + group[2:4]))
    ]
    if not chosen:
        return []
    rest: list[ChoiceRow] = []
    for scope in ("variant", "strategy"):
        for name in dict.fromkeys(getattr(row, scope) for row in chosen):
            rest.append(replace(_best([r for r in chosen if getattr(r, scope) == name]), scope=scope))
    return [*chosen, *rest, replace(_best(chosen), scope="recommended")]


def choose_by_cell(variant: str, strategy: str, rows: Sequence[AccuracyRow], metric: str) -> list[ChoiceRow]:
    """The choice of every run of a variant alone, in their order, then one percentage for all of them.

    The common percentage has the highest mean dev score over the runs; errors as for `choose`.
    """
    means = means_by_split(rows)
    if not means:
        return []
    scores = {cell: dev_scores(cell, by_split, metric) for cell, by_split in means.items()}
    about = {row.cell: row for row in rows}
    found = []
    for cell, by_split in means.items():
        percent, row = best_percent(scores[cell]), about[cell]
        head = ("cell", variant, strategy, row.train_bucket, row.size, percent, 1)
        found.append(_row(head, scores[cell], [by_split], _questions(rows, cell), cell))
    dev = common_scores(scores)
    head = ("common", variant, strategy, None, None, best_percent(dev), len(means))
    questions = max(row.questions for row in found)
    return [*found, _row(head, dev, list(means.values()), questions)]


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
            f"no accuracy on {' or '.join(wanted)}, so no restore percentage can be chosen",
            place=f"cell {cell}",
            advice="evaluate it again.",
        )
    if any(split.keys() != splits[0].keys() for split in splits) or 0.0 not in splits[0]:
        raise UserError(
            "its models were asked different dev splits",
            place=f"cell {cell}",
            expected="the same dev splits for every restored model and 0 %",
        )
    return {p: math.fsum(split[p] for split in splits) / len(splits) for p in sorted(splits[0])}


def best_percent(scores: Scores) -> float:
    """The percentage with the highest score; of equal scores the smallest percentage."""
    return min(scores, key=lambda percent: (-scores[percent], percent))


def common_scores(scores: Mapping[str, Scores]) -> Scores:
    """Mean score over all cells of every percentage that all cells have."""
    shared = set.intersection(*(set(by_percent) for by_percent in scores.values()))
    if not shared:
        raise UserError("the cells have no restore percentage in common", expected="one that all cells have")
    return {p: math.fsum(by[p] for by in scores.values()) / len(scores) for p in sorted(shared)}


def collapse_percent(scores: Scores) -> float | None:
    """The smallest percentage from which on every score is below half of the tuned model's (0 %); or None."""
    collapse = None
    for percent in sorted(scores, reverse=True):
        if percent == 0.0 or scores[percent] >= COLLAPSE_SHARE * scores[0.0]:
            break
        collapse = percent
    return collapse


def _of_group(group: Members, by_split: Mapping[str, Mapping[float, GroupRow]], metric: str) -> ChoiceRow:
    complete: dict[str, Scores] = {
        split: {p: row.mean for p, row in by.items() if row.seeds == len(group.cells)}
        for split, by in by_split.items()
    }
    dev = dev_scores(f"{group.variant}, data {group.train_bucket}, {group.size} facts", complete, metric)
    percent = best_percent(dev)
    asked = [by_split[s][percent].questions for s in TEST_SPLITS if percent in complete.get(s, {})]
    head = ("group", *group[:4], percent, len(group.cells))
    return _row(head, dev, [complete], sum(asked))


def _best(rows: Sequence[ChoiceRow]) -> ChoiceRow:
    return max(fullest(rows), key=lambda row: (row.dev, -row.percent))  # the first of equals


def _row(
    head: tuple[str, str, str, str | None, int | None, float, int],
    dev: Scores,
    over: Sequence[Mapping[str, Scores]],
    questions: int,
    cell: str | None = None,
) -> ChoiceRow:
    """head: the fields from `scope` to `seeds`. over: scores by split and percentage, to take the mean of."""
    percent = head[5]

    def accuracy(split: str, at: float) -> float | None:
        if any(at not in by_split.get(split, {}) for by_split in over):
            return None
        return math.fsum(by_split[split][at] for by_split in over) / len(over)

    in_domain, out_of_domain = TEST_SPLITS
    return ChoiceRow(
        *head,
        dev=dev[percent],
        dev_tuned=dev[0.0],
        test=accuracy(in_domain, percent),
        test_tuned=accuracy(in_domain, 0.0),
        test_ood=accuracy(out_of_domain, percent),
        test_ood_tuned=accuracy(out_of_domain, 0.0),
        questions=questions,
        collapse_percent=collapse_percent(dev),
        cell=cell,
    )


def means_by_split(rows: Iterable[AccuracyRow]) -> dict[str, dict[str, Scores]]:
    """Mean-of-buckets accuracy by cell, split and percentage; the base model is left out."""
    means: dict[str, dict[str, Scores]] = defaultdict(lambda: defaultdict(dict))
    for row in rows:
        if row.bucket is None and row.percent is not None and row.cell != BASE:
            means[row.cell][row.split][row.percent] = row.accuracy
    return {cell: dict(by_split) for cell, by_split in means.items()}


def _questions(rows: Iterable[AccuracyRow], cell: str) -> int:
    return sum(
        row.questions
        for row in rows
        if row.cell == cell and row.bucket is None and row.percent == 0.0 and row.split in TEST_SPLITS
    )
