"""How sure one may be of an accuracy over questions and training sets, and of a difference between models.

Answers come as `correct`, bool [seeds, questions]: row s holds the verdicts of the model that was fine-tuned on
the training set of seed s; all rows answer the same questions in the same order. `buckets`, int [questions], is the
base model's mastery bucket of each question's fact. The score of a model is the mean over the non-empty buckets
of the accuracy in the bucket, as in `analysis/accuracy.py`.

Bootstrap and randomisation draw from numbers of alike questions, not from questions, so that the order of the
questions is of no consequence and the cost hardly grows with their number.
"""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import sha256
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from sftlab.errors import UserError

RESAMPLES = 2_000  # bootstrap; the ends of a 95 % interval rest on the 50 outermost on each side
FLIPS = 100_000  # randomisation; the smallest p of 1e-5 leaves room for Holm over hundreds of comparisons
LEVEL, POWER = 0.05, 0.8
BETTER, WORSE, NO_DIFFERENCE = "better", "worse", "no significant difference"
ONE_SET = "for this training set"  # in place of a verdict: one training set says nothing about others

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]


class Score(NamedTuple):
    """Mean accuracy over training sets in [0, 1], its spread over them, and its 95 % interval.

    `deviation` is the sample standard deviation over seeds, None for one seed.
    """

    mean: float
    deviation: float | None
    low: float
    high: float


class Difference(NamedTuple):
    """Score of one model less that of another on the same questions, in [-1, 1], with its 95 % interval.

    Attributes:
        p: two-sided; the larger of `p_questions` and `p_sets`, so that both nulls must be rejected.
        p_questions: of the paired randomisation test on the score; the question is the unit.
        p_sets: of the t test on the differences of the training sets; None for one set.
        p_mcnemar: two-sided exact McNemar test on all pairs of verdicts, every seed a pair of its own.
        gained, lost: pairs of verdicts that only the first, or only the second model got right.
        error_questions, error_sets: standard errors of the difference over questions, and over training sets (None
            for one set).
    """

    difference: float
    low: float
    high: float
    p: float
    p_questions: float
    p_sets: float | None
    p_mcnemar: float
    gained: int
    lost: int
    error_questions: float
    error_sets: float | None

    def detectable(self, sets: int, comparisons: int) -> float | None:
        """The smallest true difference that is found with 80 % power among so many comparisons; None for one set.

        The larger of what questions and training sets allow at the level 0.05 / comparisons, the first step of Holm.
        """
        if self.error_sets is None:
            return None
        level = LEVEL / comparisons
        over_sets = smallest_effect(self.error_sets, sets - 1, level)
        return max(over_sets, smallest_effect(self.error_questions, None, level))


class OverSets(NamedTuple):
    """A mean over training sets with its 95 % t interval, two-sided p against 0, and standard error."""

    mean: float
    low: float
    high: float
    p: float
    error: float


def over_sets(values: npt.ArrayLike) -> OverSets | None:
    """Student's t over one value a training set; None for fewer than two.

    Without any spread the interval has no width, and p is 0 or, where all values are 0, 1.
    """
    from scipy.stats import t

    numbers = np.asarray(values, dtype=np.float64)
    if numbers.size < 2:
        return None
    mean, error = float(numbers.mean()), float(numbers.std(ddof=1) / np.sqrt(numbers.size))
    if error <= 1e-12 * max(1.0, abs(mean)):
        return OverSets(mean, mean, mean, 0.0 if abs(mean) > 1e-12 else 1.0, 0.0)
    half = float(t.ppf(1 - LEVEL / 2, numbers.size - 1)) * error
    return OverSets(
        mean, mean - half, mean + half, float(2 * t.sf(abs(mean) / error, numbers.size - 1)), error
    )


def smallest_effect(error: float, freedom: int | None, level: float = LEVEL) -> float:
    """The effect that a two-sided test of this level finds with 80 % power, from its standard error.

    freedom: degrees of freedom of t; None: the normal distribution.
    """
    from scipy.stats import norm, t

    law = norm() if freedom is None else t(freedom)
    return float((law.ppf(1 - level / 2) + law.ppf(POWER)) * error)


def score_interval(correct: npt.ArrayLike, buckets: npt.ArrayLike, seed: int) -> Score:
    """The score with its percentile bootstrap interval; see `bucket_scores`.

    Args:
        correct: bool [seeds, questions].
        buckets: int [questions], 0..4.
        seed: of the resampling; the same seed gives the same interval.
    """
    return bucket_scores(correct, buckets, seed)[None]


def bucket_scores(
    correct: npt.ArrayLike, buckets: npt.ArrayLike, seed: int, floor: float = 0.0
) -> dict[int | None, Score]:
    """The score (key None) and the accuracy in every non-empty bucket, each with its 95 % interval.

    The hull of two intervals. Percentile bootstrap (Efron 1979): each of RESAMPLES times the questions are resampled
    within their buckets, and the training sets among the training sets. With few training sets that understates
    their spread, so the interval holds the t interval over the training sets too (`over_sets`), cut at the
    ends of the scale. Of one training set it is about its model alone. Where all answers of a bucket are alike its
    interval has no width.

    `floor` is the lower end of the scale: -1 for changes.

    Raises UserError where there is no question.
    """
    values, strata = _checked(correct, buckets)
    numbers = [int(bucket) for bucket in np.unique(strata)]
    means = _bucket_means(values, strata)
    drawn = _resampled(values, strata, seed)
    low, high = np.percentile(drawn, [2.5, 97.5], axis=0)
    found: dict[int | None, Score] = {
        bucket: _score(means[row], low[row], high[row], floor) for row, bucket in enumerate(numbers)
    }
    low_score, high_score = np.percentile(drawn.mean(axis=1), [2.5, 97.5])
    found[None] = _score(means.mean(axis=0), low_score, high_score, floor)
    return found


def bucket_changes(
    first: npt.ArrayLike, second: npt.ArrayLike, buckets: npt.ArrayLike, seed: int
) -> dict[int | None, Score]:
    """Score of the first model less that of the second (key None), and so in every non-empty bucket.

    Paired percentile bootstrap over questions within buckets and over training sets; arguments and errors as
    for `paired_difference`.
    """
    change, strata = _change(first, second, buckets)
    return bucket_scores(change, strata, seed, floor=-1.0)


def paired_difference(
    first: npt.ArrayLike, second: npt.ArrayLike, buckets: npt.ArrayLike, seed: int
) -> Difference:
    """How much better the first model scores than the second on the same questions and training sets.

    The interval is that of `bucket_changes`. Two things may produce a difference by accident: these questions, and
    these training sets. A paired randomisation test (Fisher 1935; Noreen 1989) is about the questions: if the
    two models were alike, a question's verdicts under all seeds might as well be swapped between them, so their
    differences change sign together. `p_questions` is the share of FLIPS random swaps, and the observed outcome, whose
    score differs at least as much. With one seed and one bucket this is the exact McNemar test; it stays valid
    where few answers differ, and it does not take the seeds of one question for independent. A t test on the
    differences of the training sets is about the sets. A difference must be more than either, so p is the larger.

    Args:
        first, second: bool [seeds, questions], paired by position.
        buckets: int [questions], 0..4.
        seed: of the resampling.

    Raises UserError where the two do not have the same shape or there is no question.
    """
    change, strata = _change(first, second, buckets)
    gained, lost = int((change > 0).sum()), int((change < 0).sum())
    score = bucket_scores(change, strata, seed, floor=-1.0)[None]
    sets = over_sets(_bucket_means(change, strata).mean(axis=0))
    p_questions = randomisation_p(change, strata, seed)
    return Difference(
        difference=score.mean,
        low=score.low,
        high=score.high,
        p=p_questions if sets is None else max(p_questions, sets.p),
        p_questions=p_questions,
        p_sets=None if sets is None else sets.p,
        p_mcnemar=mcnemar(gained, lost),
        gained=gained,
        lost=lost,
        error_questions=_question_error(change, strata),
        error_sets=None if sets is None else sets.error,
    )


def mcnemar(gained: int, lost: int) -> float:
    """Two-sided exact McNemar test: is one as likely as the other? 1.0 where no pair differs."""
    from scipy.stats import binomtest

    return float(binomtest(gained, gained + lost).pvalue) if gained + lost else 1.0


def holm(p_values: Sequence[float]) -> list[float]:
    """p values corrected for their number (Holm 1979), in the order given.

    The k-th smallest of m is multiplied by m - k + 1; none falls below a smaller one's, or exceeds 1.
    """
    corrected = [0.0] * len(p_values)
    floor = 0.0
    for rank, index in enumerate(sorted(range(len(p_values)), key=p_values.__getitem__)):
        floor = max(floor, min(1.0, (len(p_values) - rank) * p_values[index]))
        corrected[index] = floor
    return corrected


def verdict(difference: float, p_corrected: float) -> str:
    """'better', 'worse' or 'no significant difference', from a p that is about questions and training sets."""
    if p_corrected >= LEVEL or not difference:
        return NO_DIFFERENCE
    return BETTER if difference > 0 else WORSE


def seed_of(*parts: object) -> int:
    """A seed from what a number is about, so that it does not depend on which others are computed."""
    return int.from_bytes(sha256("\x1f".join(map(str, parts)).encode()).digest()[:8], "big")


def _checked(correct: npt.ArrayLike, buckets: npt.ArrayLike) -> tuple[Ints, Ints]:
    values, strata = np.asarray(correct), np.asarray(buckets, dtype=np.int64)
    if values.ndim != 2 or strata.shape != values.shape[1:]:
        raise UserError(
            f"answers of shape {values.shape} do not fit buckets of shape {strata.shape}",
            value=(values.shape, strata.shape),
            expected="[seeds, questions] and [questions]",
        )
    if not values.size:
        raise UserError(
            "no question has an answer and a mastery bucket, so there is no accuracy to report",
            value=values.shape,
            expected="one seed and one question at least",
        )
    return values.astype(np.int64), strata


def _change(first: npt.ArrayLike, second: npt.ArrayLike, buckets: npt.ArrayLike) -> tuple[Ints, Ints]:
    """First less second: int [seeds, questions] in -1..1, and the buckets."""
    a, strata = _checked(first, buckets)
    b, _ = _checked(second, buckets)
    if a.shape != b.shape:
        raise UserError(
            f"the two models cannot be compared: {a.shape[0]} training sets x {a.shape[1]} questions against "
            f"{b.shape[0]} x {b.shape[1]}",
            value=(a.shape, b.shape),
            advice="give both the same.",
        )
    return a - b, strata


def _bucket_means(values: Ints, strata: Ints) -> Floats:
    """float64 [non-empty buckets, seeds]."""
    return np.stack([values[:, strata == bucket].mean(axis=1) for bucket in np.unique(strata)])


def _score(means: Floats, low: float, high: float, floor: float) -> Score:
    """The hull of a bootstrap interval and the t interval over training sets, within `floor` and 1."""
    sets = over_sets(means)
    if sets is None:
        return Score(float(means.mean()), None, float(low), float(high))
    ends = max(floor, min(float(low), sets.low)), min(1.0, max(float(high), sets.high))
    return Score(sets.mean, float(means.std(ddof=1)), *ends)


def _resampled(values: Ints, strata: Ints, seed: int) -> Floats:
    """Means over seeds of every non-empty bucket in RESAMPLES bootstrap samples: float64 [RESAMPLES, buckets].

    Questions of a bucket with the same values under all seeds are alike: a bootstrap sample of the bucket is a
    multinomial draw over its kinds of question.
    """
    rng = np.random.default_rng(seed)
    seeds = len(values)
    # Sorted by bucket, then by value under the first seed, the second ...: equal ones are adjacent.
    keys = np.vstack([strata, values])[:, np.lexsort((*values[::-1], strata))]
    starts = np.flatnonzero(np.r_[True, (keys[:, 1:] != keys[:, :-1]).any(axis=0)])
    all_kinds, all_counts = keys[:, starts], np.diff(starts, append=strata.size)
    means = []
    for bucket in np.unique(strata):
        here = all_kinds[0] == bucket
        kinds, counts = all_kinds[1:, here], all_counts[here]
        drawn = rng.multinomial(counts.sum(), counts / counts.sum(), size=RESAMPLES)
        means.append(drawn @ kinds.T / counts.sum())
    by_seed = np.stack(means, axis=1)  # [RESAMPLES, buckets, seeds]
    picked = rng.multinomial(seeds, np.full(seeds, 1 / seeds), size=RESAMPLES) / seeds
    result: Floats = np.einsum("rbs,rs->rb", by_seed, picked)
    return result


def _question_error(change: Ints, strata: Ints) -> float:
    """Standard error of the mean over buckets and seeds, with the questions of a bucket as units."""
    of_question = change.mean(axis=0)
    # Sorted, so that the order of the questions does not change the last bits.
    parts = [np.sort(of_question[strata == bucket]) for bucket in np.unique(strata)]
    return float(np.sqrt(sum(part.var() / part.size for part in parts)) / len(parts))


def randomisation_p(change: Ints, strata: Ints, seed: int) -> float:
    """Two-sided p of the sum over buckets of mean changes under random signs of the questions."""
    rng = np.random.default_rng(seed)
    totals = change.sum(axis=0)
    observed = 0.0
    drawn = np.zeros(FLIPS)
    for bucket in np.unique(strata):
        here = totals[strata == bucket]
        observed += here.sum() / here.size
        for size, count in zip(*np.unique(np.abs(here[here != 0]), return_counts=True), strict=True):
            # Of `count` questions that changed by `size` verdicts, those that keep their sign less the others.
            drawn += size / here.size * (2.0 * rng.binomial(count, 0.5, size=FLIPS) - count)
    # Sums of the same numbers in another order may differ in the last bits.
    as_far = np.count_nonzero(np.abs(drawn) >= abs(observed) - 1e-12)
    return float((as_far + 1) / (FLIPS + 1))
