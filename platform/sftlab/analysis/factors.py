"""Factors of fine-tuning other than the training set: method, size, epochs, mixtures, leave-one-out.

Differences of two tuned models of the same base hold no baseline: s0 drops out.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Arms:
    """Two ways of training the same cells, by benchmark: `difference` is the mean of first less second.

    `p` is that of a paired t-test over the models' means, the paper's form; `first_better` counts models.
    """

    difference: float
    p: float
    first_better: int
    models: int


def arms_by_benchmark(first: npt.ArrayLike, second: npt.ArrayLike) -> list[Arms]:
    """First less second by benchmark, tested over models.

    Args:
        first, second: scores [models, sets, benchmarks], paired by position. With one model p is NaN.
    """
    from scipy.stats import ttest_1samp

    change = np.asarray(first, dtype=np.float64) - np.asarray(second, dtype=np.float64)
    found = []
    for by_model in change.mean(axis=1).T:
        # Models that all differ by exactly the same leave no spread to test against.
        p = float(ttest_1samp(by_model, 0).pvalue) if by_model.std() > 0 else float(not by_model.any())
        p = p if by_model.size > 1 else float("nan")
        found.append(Arms(float(by_model.mean()), p, int((by_model > 0).sum()), by_model.size))
    return found


def share_better(first: npt.ArrayLike, second: npt.ArrayLike) -> float:
    """Share of cells in which the first scores higher; a tie counts one half."""
    change = np.asarray(first, dtype=np.float64) - np.asarray(second, dtype=np.float64)
    return float((change > 0).mean() + (change == 0).mean() / 2)


def epoch_steps(scores: npt.ArrayLike, spread: npt.ArrayLike) -> Floats:
    """Mean over benchmarks of |s(e + 1) - s(e)| / spread: [..., epochs - 1].

    Args:
        scores: [..., epochs, benchmarks].
        spread: [benchmarks], the unit of each, such as the standard deviation of its gains.
    """
    values = np.asarray(scores, dtype=np.float64)
    result: Floats = (np.abs(np.diff(values, axis=-2)) / np.asarray(spread)).mean(axis=-1)
    return result


def slowing(steps: npt.ArrayLike) -> Floats:
    """Mean of the first third of the steps less mean of the last third: [...]; above 0 where training settles.

    Args:
        steps: [..., steps], at least two.
    """
    values = np.asarray(steps, dtype=np.float64)
    third = max(1, values.shape[-1] // 3)
    result: Floats = values[..., :third].mean(axis=-1) - values[..., -third:].mean(axis=-1)
    return result


def distance_between_sets(scores: npt.ArrayLike, spread: npt.ArrayLike) -> Floats:
    """For each set and epoch, root mean square distance to the mean of all sets: [models, sets, epochs].

    Trajectories that run together have distances that fall with the epochs.

    Args:
        scores: [models, sets, epochs, benchmarks].
        spread: [benchmarks], the unit of each.
    """
    values = np.asarray(scores, dtype=np.float64) / np.asarray(spread)
    from_mean = values - values.mean(axis=1, keepdims=True)
    result: Floats = np.sqrt(np.square(from_mean).mean(axis=-1))
    return result


def rank_of_mixture(mixture: float, single: npt.ArrayLike) -> int:
    """The mixture's place among itself and the single sets; 1 is the largest gain."""
    return 1 + int((np.asarray(single) > mixture).sum())


def contributions(mixture: npt.ArrayLike, without: npt.ArrayLike, spread: npt.ArrayLike) -> Floats:
    """What each set brings to a mixture: mean over benchmarks of (s_all - s_without) / spread, [sets].

    Args:
        mixture: scores [benchmarks] of the model tuned on all sets.
        without: scores [sets, benchmarks] of the models tuned on all sets but one.
        spread: [benchmarks].
    """
    change = np.asarray(mixture, dtype=np.float64)[None] - np.asarray(without, dtype=np.float64)
    result: Floats = (change / np.asarray(spread)).mean(axis=1)
    return result
