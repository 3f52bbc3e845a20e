"""What accuracy on the facts of a topic comes without knowledge: the majority answer, and guesses by frequency."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

FEWEST = 4  # facts of a correlation


class Baseline(NamedTuple):
    """Accuracies on the facts of a topic that need no knowledge of any fact.

    majority: the answer that most facts of the other split have. majority_right: the facts that it answers.
    frequency_accuracy: the expected accuracy of answers that are drawn as often as they occur in the other split.
    """

    majority: str
    majority_right: int
    frequency_accuracy: float


def frequencies(objects: Mapping[str, int], accepted: Sequence[Collection[str]]) -> list[int]:
    """How many facts have the answer of each fact. objects: facts by answer; accepted: the names of each fact.

    >>> frequencies({"Paris": 3, "Lyon": 1, "Lutetia": 1}, [["Paris", "Lutetia"], ["Rome"]])
    [4, 0]
    """
    return [sum(objects.get(name, 0) for name in set(names)) for names in accepted]


def baseline(objects: Sequence[str], accepted: Sequence[Collection[str]]) -> Baseline | None:
    """The baselines of a topic's facts; None where either side is empty.

    Args:
        objects: the answers of the facts of another split. Of equally frequent ones the first by name is the majority.
        accepted: the accepted names of each fact that is asked.

    >>> baseline(["Paris", "Lyon", "Paris", "Rome"], [["Paris"], ["Lyon"]])
    Baseline(majority='Paris', majority_right=1, frequency_accuracy=0.375)
    """
    if not objects or not accepted:
        return None
    counts = Counter(objects)
    majority = min(counts, key=lambda name: (-counts[name], name))
    right = sum(majority in names for names in accepted)
    share = sum(frequencies(counts, accepted)) / len(accepted) / len(objects)
    return Baseline(majority, right, share)


def frequency_correlation(frequency: npt.ArrayLike, right: npt.ArrayLike) -> float | None:
    """Spearman's rho between the frequency of a fact's answer and whether a model's answer is right.

    None for fewer than FEWEST facts, and where either is constant. Mean ranks for ties.

    >>> round(frequency_correlation([1, 2, 3, 4], [False, False, True, True]), 6)  # 2 / sqrt(5)
    0.894427
    """
    from scipy.stats import rankdata

    ranks = rankdata(np.asarray(frequency, np.float64))
    verdicts = np.asarray(right, np.float64)
    assert ranks.shape == verdicts.shape
    if len(ranks) < FEWEST or not np.ptp(ranks) or not np.ptp(verdicts):
        return None
    return float(np.corrcoef(ranks, verdicts)[0, 1])
