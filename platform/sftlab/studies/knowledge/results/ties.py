"""Which models are as good on dev as a chosen one: where there are any, dev has made no choice between them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from sftlab.studies.knowledge.results.choice import Scores, metric_of
from sftlab.studies.knowledge.results.rows import ChoiceRow
from sftlab.studies.knowledge.results.tables import Results

EQUAL = 1e-9  # shares that differ by less are equal but for the order of their summation

_Means = Mapping[
    str, Mapping[float, tuple[int, float]]
]  # seeds and mean by split and percentage of one group


class Setting(NamedTuple):
    """One group of models: those of all seeds."""

    variant: str
    train_bucket: str
    size: int
    percent: float


def ties(results: Results, choice: ChoiceRow) -> list[Setting]:
    """The other settings that have the dev score of a choice; those of its own group come first.

    Groups with fewer seeds than the choice do not compete with it. The tuned models (0 %) of variants that
    fine-tune alike are one and the same and no tie.
    """
    splits = metric_of(results.metric).splits
    assert choice.train_bucket is not None and choice.size is not None
    own = Setting(choice.variant, choice.train_bucket, choice.size, choice.percent)
    means: dict[tuple[str, str, int], dict[str, dict[float, tuple[int, float]]]] = {}
    for row in results.groups:
        if row.bucket is None and row.split in splits:
            group = means.setdefault((row.variant, row.train_bucket, row.size), {})
            group.setdefault(row.split, {})[row.percent] = row.seeds, row.mean
    found = [
        Setting(*group, percent)
        for group in sorted(means, key=lambda group: group != own[:3])
        if _seeds(means[group]) >= choice.seeds
        for percent in _equal(_of_all_seeds(means[group]), choice.dev)
    ]
    sft = {variant.name: variant.spec.get("sft") for variant in results.variants}

    def same_model(one: Setting, other: Setting) -> bool:
        tuned = one.percent == other.percent == 0.0 and one[1:] == other[1:]
        return one == other or (tuned and sft[one.variant] == sft[other.variant])

    apart: list[Setting] = []
    for setting in found:
        if not any(same_model(setting, other) for other in (own, *apart)):
            apart.append(setting)
    return apart


def _seeds(by_split: _Means) -> int:
    return max(count for scores in by_split.values() for count, _ in scores.values())


def _of_all_seeds(by_split: _Means) -> Scores:
    """Dev scores of the percentages that every seed of the group has in every split."""
    seeds = _seeds(by_split)
    complete: Sequence[Scores] = [
        {p: mean for p, (count, mean) in scores.items() if count == seeds} for scores in by_split.values()
    ]
    shared = set.intersection(*(set(scores) for scores in complete))
    return {p: math.fsum(scores[p] for scores in complete) / len(complete) for p in shared}


def _equal(scores: Scores, dev: float) -> list[float]:
    return sorted(p for p, score in scores.items() if abs(score - dev) < EQUAL)
