"""Accuracy by bucket, its mean, and the intervals around both."""

from __future__ import annotations

import math

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sftlab.analysis.accuracy import (
    BucketAccuracy,
    PairedBucket,
    accuracy_by_bucket,
    difference_interval,
    mean_interval,
    mean_of_buckets,
    paired_by_bucket,
    paired_interval,
    wilson,
)
from sftlab.errors import UserError
from tests.support.refusals import refused

relaxed = settings(deadline=None, max_examples=40)
BUCKETS = {"a": 0, "b": 1, "c": 1, "d": 2, "e": 3, "f": 4, "g": 4}


def answers(**verdicts: bool | None) -> pa.Table:
    return pa.table({"fact_id": list(verdicts), "correct": pa.array(list(verdicts.values()), pa.bool_())})


ALL = answers(a=False, b=True, c=False, d=True, e=True, f=True, g=False)

counts = st.lists(
    st.tuples(st.integers(0, 40), st.integers(0, 40)).map(lambda pair: (max(pair), min(pair))),
    min_size=5,
    max_size=5,
).filter(lambda rows: any(n for n, _ in rows))


def bucket_list(rows: list[tuple[int, int]]) -> list[BucketAccuracy]:
    return [BucketAccuracy(bucket, n, right) for bucket, (n, right) in enumerate(rows)]


def test_accuracy_is_counted_within_each_bucket() -> None:
    found = accuracy_by_bucket(ALL, BUCKETS)
    assert [(b.bucket, b.questions, b.correct) for b in found] == [
        (0, 1, 0),
        (1, 2, 1),
        (2, 1, 1),
        (3, 1, 1),
        (4, 2, 1),
    ]
    assert [b.accuracy for b in found] == [0.0, 0.5, 1.0, 1.0, 0.5]


def test_mean_weighs_buckets_alike_whatever_their_size() -> None:
    mean = mean_of_buckets(accuracy_by_bucket(ALL, BUCKETS))
    assert mean.accuracy == pytest.approx((0 + 0.5 + 1 + 1 + 0.5) / 5)
    assert (mean.questions, mean.correct, mean.empty, mean.complete) == (7, 4, (), True)


def test_empty_bucket_is_left_out_of_the_mean_and_named() -> None:
    found = accuracy_by_bucket(answers(b=True, c=True, f=False), BUCKETS)
    assert found[0].accuracy is None and found[0].interval is None
    mean = mean_of_buckets(found)
    assert mean.accuracy == 0.5
    assert mean.empty == (0, 2, 3) and not mean.complete


def test_no_answered_question_at_all_is_an_error() -> None:
    with refused("no accuracy", value=[0, 0, 0, 0, 0], expected="one bucket at least"):
        mean_of_buckets(accuracy_by_bucket(answers(), BUCKETS))
    with refused("cannot be compared", value=[0, 0, 0, 0, 0], expected="one bucket at least"):
        paired_interval(paired_by_bucket(answers(), answers(), BUCKETS))


def test_unanswerable_question_counts_as_wrong_and_unscored_fact_not_at_all() -> None:
    found = accuracy_by_bucket(answers(a=None, unknown=True), BUCKETS)
    assert (found[0].questions, found[0].correct) == (1, 0)
    assert sum(b.questions for b in found) == 1


def test_fact_answered_twice_is_refused() -> None:
    table = pa.table({"fact_id": ["a", "a"], "correct": [True, False]})
    with pytest.raises(UserError, match="more than once"):
        accuracy_by_bucket(table, BUCKETS)


def test_wilson_interval_matches_published_examples() -> None:
    # Newcombe (1998), Statistics in Medicine 17:857, Table I, method 3 (score without continuity correction).
    for right, questions, low, high in (
        (81, 263, 0.2553, 0.3662),
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0, 0.1611),
    ):
        interval = wilson(right, questions)
        assert (round(interval.low, 4), round(interval.high, 4)) == (low, high)


@relaxed
@given(st.integers(1, 500), st.data())
def test_wilson_interval_is_where_the_score_test_is_just_not_rejected(
    questions: int, data: st.DataObject
) -> None:
    right = data.draw(st.integers(0, questions))
    interval = wilson(right, questions)
    assert 0 <= interval.low <= interval.value <= interval.high <= 1
    for end in {interval.low, interval.high} - {0.0, 1.0}:
        z = (interval.value - end) / math.sqrt(end * (1 - end) / questions)
        assert abs(z) == pytest.approx(1.959964, rel=1e-3)


def test_mean_interval_of_one_bucket_is_its_wilson_interval() -> None:
    rows = [(0, 0), (0, 0), (263, 81), (0, 0), (0, 0)]
    assert mean_interval(bucket_list(rows)) == pytest.approx(wilson(81, 263))


def test_difference_interval_matches_a_published_example() -> None:
    # Newcombe (1998), Statistics in Medicine 17:873, Table II, method 10: 56/70 - 48/80.
    first, second = [BucketAccuracy(0, 80, 48)], [BucketAccuracy(0, 70, 56)]
    assert difference_interval(second, first) == pytest.approx((0.2, 0.0524, 0.3339), abs=5e-5)


@relaxed
@given(counts, counts)
def test_difference_interval_turns_around_with_its_arguments(
    first: list[tuple[int, int]], second: list[tuple[int, int]]
) -> None:
    there = difference_interval(bucket_list(second), bucket_list(first))
    back = difference_interval(bucket_list(first), bucket_list(second))
    assert there == pytest.approx((-back.value, -back.high, -back.low))
    assert there.low <= there.value <= there.high


def test_paired_counts_hold_what_one_model_alone_got_right() -> None:
    after = answers(a=True, b=False, c=True, d=True, e=True, f=True, g=False)
    assert paired_by_bucket(ALL, after, BUCKETS) == [
        PairedBucket(0, 1, gained=1, lost=0),
        PairedBucket(1, 2, gained=1, lost=1),
        PairedBucket(2, 1, gained=0, lost=0),
        PairedBucket(3, 1, gained=0, lost=0),
        PairedBucket(4, 2, gained=0, lost=0),
    ]


def test_models_asked_different_questions_are_not_compared() -> None:
    with pytest.raises(UserError, match="fact g"):
        paired_by_bucket(ALL, ALL.slice(0, 6), BUCKETS)


def test_paired_interval_by_hand() -> None:
    # One bucket, 98 questions, 8 gained, 2 lost: 6/98; variance ((10 + 2) - 36/100) / 100^2.
    interval = paired_interval([PairedBucket(0, 98, 8, 2), PairedBucket(1, 0, 0, 0)])
    half = 1.959964 * math.sqrt(12 - 0.36) / 100
    assert interval == pytest.approx((6 / 98, 6 / 98 - half, 6 / 98 + half), rel=1e-6)


@relaxed
@given(counts, st.randoms(use_true_random=False))
def test_paired_difference_equals_the_difference_of_means(
    rows: list[tuple[int, int]], random: object
) -> None:
    facts = {f"{b}-{i}": b for b, (n, _) in enumerate(rows) for i in range(n)}
    draw = random.random  # type: ignore[attr-defined]
    first, second = ({fact: draw() < 0.5 for fact in facts} for _ in range(2))
    before, after = answers(**first), answers(**second)
    difference = paired_interval(paired_by_bucket(before, after, facts)).value
    means = [mean_of_buckets(accuracy_by_bucket(table, facts)).accuracy for table in (before, after)]
    assert difference == pytest.approx(means[1] - means[0])
