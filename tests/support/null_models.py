"""Two kinds of model that do not differ on average: each training set favours one of them a little."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from sftlab.analysis.statistics import over_sets, randomisation_p

Ints = npt.NDArray[np.int64]


def null_change(sets: int, questions: int, spread: float, seed: int) -> tuple[Ints, Ints]:
    """First less second model: int [sets, questions] in -1..1, and the buckets.

    The true difference of a training set is normal with mean 0 and deviation `spread`. The two models of a set find the
    same questions hard, and differ at random in 6 % of their answers.
    """
    rng = np.random.default_rng(seed)
    buckets = np.arange(questions) % 5
    easy = np.clip(rng.random(questions) * 0.5 + buckets / 10, 0.02, 0.98)
    shift = rng.normal(0, spread, (sets, 1))
    luck = rng.random((sets, questions))
    first, second = luck < np.clip(easy + shift / 2, 0, 1), luck < np.clip(easy - shift / 2, 0, 1)
    again = rng.random((sets, questions)) < 0.06
    first = np.where(again, rng.random((sets, questions)) < np.clip(easy + shift / 2, 0, 1), first)
    return first.astype(np.int64) - second, buckets


def null_comparison(sets: int, questions: int, spread: float, seed: int) -> tuple[float, float]:
    """p over the questions and p over the training sets of such a comparison."""
    change, buckets = null_change(sets, questions, spread, seed)
    means = [np.mean([row[buckets == bucket].mean() for bucket in range(5)]) for row in change]
    found = over_sets(means)
    assert found is not None
    return randomisation_p(change, buckets, seed), found.p
