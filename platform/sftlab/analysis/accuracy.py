"""Closed-book accuracy by mastery bucket, its mean, and how sure one may be of them (paper, section 3.3)."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from sftlab.errors import UserError

if TYPE_CHECKING:
    import pyarrow as pa

BUCKET_COUNT = 5
Z_95 = 1.959963984540054  # the normal distribution's 97.5 % point


class Interval(NamedTuple):
    """A share or a difference of shares with the ends of its 95 % interval."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class BucketAccuracy:
    """Questions of one bucket of the base model's mastery, and how many were answered right."""

    bucket: int
    questions: int
    correct: int

    @property
    def accuracy(self) -> float | None:
        """Share in [0, 1]; None where the bucket holds no question."""
        return self.correct / self.questions if self.questions else None

    @property
    def interval(self) -> Interval | None:
        """Accuracy with its 95 % Wilson interval; None where the bucket holds no question."""
        return wilson(self.correct, self.questions) if self.questions else None


@dataclass(frozen=True)
class MeanAccuracy:
    """Mean of the buckets' accuracies; `empty` names the buckets that had no question and were left out."""

    accuracy: float
    questions: int
    correct: int
    empty: tuple[int, ...]

    @property
    def complete(self) -> bool:
        """Whether the mean is over all five buckets, as the paper's equation asks."""
        return not self.empty


@dataclass(frozen=True)
class PairedBucket:
    """One bucket's questions under two models: `gained` only the second got right, `lost` only the first."""

    bucket: int
    questions: int
    gained: int
    lost: int


def accuracy_by_bucket(answers: pa.Table, buckets: Mapping[str, int]) -> list[BucketAccuracy]:
    """Accuracy in each of the five buckets, empty ones included, in the order 0..4.

    Args:
        answers: the columns `fact_id` (string) and `correct` (bool); others are not looked at. A null in
            `correct` (the question could not be asked) counts as a wrong answer.
        buckets: the base model's bucket 0..4 by fact id. A fact without one (its mastery could not be
            scored) belongs to no bucket, and its answer is left out.

    Raises UserError where a fact is answered twice.
    """
    questions, correct = [0] * BUCKET_COUNT, [0] * BUCKET_COUNT
    for fact, right in _verdicts(answers).items():
        if fact in buckets:
            questions[buckets[fact]] += 1
            correct[buckets[fact]] += right
    return [BucketAccuracy(b, questions[b], correct[b]) for b in range(BUCKET_COUNT)]


def mean_of_buckets(buckets: Sequence[BucketAccuracy]) -> MeanAccuracy:
    """Acc = sum of Acc_i / 5 (paper, section 3.3).

    Where a bucket holds no question, the mean is taken over the others and `empty` says which are missing:
    such a mean is not the paper's. Raises UserError where all are empty.
    """
    shares = [b.accuracy for b in buckets if b.accuracy is not None]
    if not shares:
        raise UserError(
            "no question has an answer and a mastery bucket, so there is no accuracy to report",
            value=[bucket.questions for bucket in buckets],
            expected="a question in one bucket at least",
        )
    return MeanAccuracy(
        accuracy=math.fsum(shares) / len(shares),
        questions=sum(b.questions for b in buckets),
        correct=sum(b.correct for b in buckets),
        empty=tuple(b.bucket for b in buckets if not b.questions),
    )


def wilson(correct: int, questions: int) -> Interval:
    """A share with its 95 % Wilson score interval (Wilson 1927); it stays within [0, 1] and works at 0 and 1."""
    from scipy.stats import binomtest

    assert 0 <= correct <= questions and questions > 0
    p = correct / questions
    found = binomtest(correct, questions).proportion_ci(0.95, "wilson")
    return Interval(p, min(p, float(found.low)), max(p, float(found.high)))


def mean_interval(buckets: Sequence[BucketAccuracy]) -> Interval:
    """Mean of the non-empty buckets with a 95 % interval built from their Wilson intervals.

    With weights c_i = 1/m and Wilson ends l_i, u_i: mean - sqrt(sum (c_i (p_i - l_i))^2) and likewise above
    (the method of variance estimates recovery; Zou and Donner 2008).
    """
    parts = [b.interval for b in buckets if b.interval is not None]
    mean = mean_of_buckets(buckets).accuracy
    below = math.sqrt(math.fsum((p.value - p.low) ** 2 for p in parts)) / len(parts)
    above = math.sqrt(math.fsum((p.high - p.value) ** 2 for p in parts)) / len(parts)
    return Interval(mean, mean - below, mean + above)


def difference_interval(second: Sequence[BucketAccuracy], first: Sequence[BucketAccuracy]) -> Interval:
    """Mean accuracy of `second` less that of `first`, with a 95 % interval (Newcombe 1998, method 10).

    The two are taken as independent samples. Two models that answer the same questions mostly agree, so
    that the interval is wider than need be; `paired_interval` is the sharper one.
    """
    a, b = mean_interval(second), mean_interval(first)
    difference = a.value - b.value
    low = difference - math.hypot(a.value - a.low, b.high - b.value)
    high = difference + math.hypot(a.high - a.value, b.value - b.low)
    return Interval(difference, low, high)


def paired_by_bucket(first: pa.Table, second: pa.Table, buckets: Mapping[str, int]) -> list[PairedBucket]:
    """Where two models' answers to the same questions differ; tables as for `accuracy_by_bucket`.

    Raises UserError where the two did not answer the same facts.
    """
    before, after = _verdicts(first), _verdicts(second)
    if before.keys() != after.keys():
        odd = sorted(before.keys() ^ after.keys())[0]
        raise UserError(
            f"the two models did not answer the same questions: fact {odd} has one answer only",
            value=odd,
            advice="evaluate both on the same facts.",
        )
    counts = [[0, 0, 0] for _ in range(BUCKET_COUNT)]
    for fact, right in before.items():
        if fact in buckets:
            row = counts[buckets[fact]]
            row[0] += 1
            row[1] += after[fact] and not right
            row[2] += right and not after[fact]
    return [PairedBucket(b, *counts[b]) for b in range(BUCKET_COUNT)]


def paired_interval(buckets: Sequence[PairedBucket]) -> Interval:
    """Change of the mean accuracy from the first model to the second, with a 95 % interval for paired data.

    In a bucket of n questions with g gained and l lost: difference (g - l) / n with variance
    ((g + l) - (g - l)^2 / n) / n^2 (the Wald interval for paired shares); the buckets are independent.
    One gained and one lost question are added to each bucket's variance, which is else zero without changes.
    """
    used = [b for b in buckets if b.questions]
    if not used:
        raise UserError(
            "no question was answered by both models, so they cannot be compared",
            value=[bucket.questions for bucket in buckets],
            expected="a question in one bucket at least",
        )
    difference = math.fsum((b.gained - b.lost) / b.questions for b in used) / len(used)
    variances = [
        (b.gained + b.lost + 2 - (b.gained - b.lost) ** 2 / (b.questions + 2)) / (b.questions + 2) ** 2
        for b in used
    ]
    half = Z_95 * math.sqrt(math.fsum(variances)) / len(used)
    return Interval(difference, difference - half, difference + half)


def _verdicts(answers: pa.Table) -> dict[str, bool]:
    facts = answers["fact_id"].to_pylist()
    verdicts = {f: bool(right) for f, right in zip(facts, answers["correct"].to_pylist(), strict=True)}
    if len(verdicts) != len(facts):
        raise UserError(
            f"{len(facts) - len(verdicts)} facts are answered more than once", advice="keep one answer each."
        )
    return verdicts
