"""What a finished trial reports: scores by percentage, the best of them, and where the time went."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field


@dataclass
class StageTime:
    """Wall seconds of one stage of a trial, of which `queued` passed while it waited; `hits` counts results found."""

    seconds: float = 0.0
    queued: float = 0.0
    hits: int = 0


@dataclass
class Outcome:
    """A finished trial: the metric by percentage, the best of them, and where the time went."""

    scores: Mapping[float, float]
    percent: float
    score: float
    times: Mapping[str, StageTime] = field(default_factory=dict)


def mean_outcome(outcomes: Sequence[Outcome]) -> Outcome:
    """The mean scores of a point's seeds, and the percentage with the best of them; times are left out."""
    scores = {p: math.fsum(o.scores[p] for o in outcomes) / len(outcomes) for p in outcomes[0].scores}
    percent = best_percent(scores)
    return Outcome(scores, percent, scores[percent])


def best_percent(scores: Mapping[float, float]) -> float:
    """The percentage with the best score; of equal ones the smallest."""
    return min(scores, key=lambda p: (math.isnan(scores[p]), -scores[p], p))
