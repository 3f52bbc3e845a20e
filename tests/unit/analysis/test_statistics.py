"""Intervals, paired tests and Holm's correction, against scipy and numbers worked out by hand."""

from __future__ import annotations

import itertools

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from sftlab.analysis import statistics
from sftlab.analysis.statistics import (
    BETTER,
    NO_DIFFERENCE,
    WORSE,
    bucket_changes,
    bucket_scores,
    holm,
    mcnemar,
    over_sets,
    paired_difference,
    score_interval,
    seed_of,
    smallest_effect,
    verdict,
)
from tests.support.null_models import null_comparison
from tests.support.refusals import refused

Bools = npt.NDArray[np.bool_]


def answers(seeds: int, questions: int, share: float, seed: int = 0) -> Bools:
    return np.random.default_rng(seed).random((seeds, questions)) < share


def test_score_is_the_mean_over_non_empty_buckets() -> None:
    correct = np.array([[1, 1, 0, 0], [1, 0, 0, 0]], bool)
    found = bucket_scores(correct, [0, 0, 3, 3], seed=1)
    assert set(found) == {0, 3, None}
    assert found[0].mean == 0.75 and found[3].mean == 0.0
    assert found[None].mean == 0.375  # (0.75 + 0) / 2, not 3 of 8
    assert found[None].deviation == pytest.approx(np.std([0.5, 0.25], ddof=1))
    assert score_interval(correct, [0, 0, 3, 3], seed=1) == found[None]


def test_one_seed_has_no_deviation_and_equal_answers_have_no_width() -> None:
    assert score_interval([[True, True]], [0, 4], seed=0) == (1.0, None, 1.0, 1.0)


def test_interval_of_one_seed_agrees_with_scipys_percentile_bootstrap() -> None:
    correct = answers(1, 300, 0.4)
    reference = stats.bootstrap(
        (correct[0].astype(float),), np.mean, method="percentile", n_resamples=9999, rng=0
    ).confidence_interval
    found = score_interval(correct, np.zeros(300, int), seed=0)
    assert found.low == pytest.approx(reference.low, abs=0.006)
    assert found.high == pytest.approx(reference.high, abs=0.006)


def test_interval_has_the_width_of_the_stratified_standard_error() -> None:
    buckets = np.repeat([0, 1, 2], [400, 200, 100])
    correct = answers(1, 700, 0.5)
    found = score_interval(correct, buckets, seed=3)
    variances = [correct[0, buckets == b].var() / (buckets == b).sum() for b in range(3)]
    half = 1.96 * np.sqrt(sum(variances)) / 3
    assert (found.high - found.low) / 2 == pytest.approx(half, rel=0.06)


def test_training_sets_that_differ_widen_the_interval() -> None:
    alike = np.tile(answers(1, 200, 0.5), (4, 1))
    far = np.concatenate([answers(2, 200, 0.2), answers(2, 200, 0.8)])
    buckets = np.zeros(200, int)
    narrow, wide = score_interval(alike, buckets, 0), score_interval(far, buckets, 0)
    assert wide.high - wide.low > 2 * (narrow.high - narrow.low)


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 2**32), st.integers(1, 3))
def test_order_of_questions_is_of_no_consequence(draw: int, seeds: int) -> None:
    rng = np.random.default_rng(draw)
    first, second = rng.random((seeds, 40)) < 0.6, rng.random((seeds, 40)) < 0.5
    buckets = rng.integers(0, 5, 40)
    order = rng.permutation(40)
    assert bucket_scores(first, buckets, 7) == bucket_scores(first[:, order], buckets[order], 7)
    assert paired_difference(first, second, buckets, 7) == paired_difference(
        first[:, order], second[:, order], buckets[order], 7
    )


def test_same_seed_gives_the_same_numbers_and_another_seed_others() -> None:
    correct, buckets = answers(3, 50, 0.5), np.zeros(50, int)
    assert score_interval(correct, buckets, 1) == score_interval(correct, buckets, 1)
    assert score_interval(correct, buckets, 1) != score_interval(correct, buckets, 2)
    assert seed_of("a", 1) == seed_of("a", 1) != seed_of("a", 2)


def test_identical_models_differ_by_nothing() -> None:
    correct = answers(3, 60, 0.5)
    found = paired_difference(correct, correct, np.arange(60) % 5, seed=0)
    assert found == (0.0, 0.0, 0.0, 1.0, 1.0, 1.0, 1.0, 0, 0, 0.0, 0.0)


def test_one_seed_and_bucket_is_mcnemars_exact_test() -> None:
    first, second = np.zeros((1, 50), bool), np.zeros((1, 50), bool)
    first[0, :9] = True  # gained
    second[0, 9:11] = True  # lost
    found = paired_difference(first, second, np.zeros(50, int), seed=0)
    exact = stats.binomtest(9, 11).pvalue
    assert (found.gained, found.lost) == (9, 2)
    assert found.difference == pytest.approx(7 / 50)
    assert found.p_mcnemar == exact
    assert found.p == pytest.approx(exact, abs=0.003)


def test_randomisation_counts_all_swaps_of_seeds_and_buckets() -> None:
    """Every one of the 2^8 sign patterns, by hand; scipy's permutation test agrees."""
    change = np.array([[1, 1, 0, 1, 0, 1, 1, -1], [1, 0, 0, 1, 1, 1, 1, -1]])
    first, second = change > 0, change < 0
    buckets = np.array([0, 0, 0, 1, 1, 1, 1, 1])

    def score(signs: npt.NDArray[np.int64]) -> float:
        moved = change * signs
        return float(np.mean([moved[:, buckets == b].mean() for b in (0, 1)]))

    observed = score(np.ones(8, np.int64))
    patterns = [score(np.array(signs)) for signs in itertools.product((-1, 1), repeat=8)]
    exact = float(np.mean([abs(s) >= abs(observed) - 1e-12 for s in patterns]))
    found = paired_difference(first, second, buckets, seed=0)
    assert found.difference == pytest.approx(observed)
    assert found.p_questions == pytest.approx(exact, abs=0.004)
    weights = np.where(buckets == 0, 1 / 3, 1 / 5) / 2
    reference = stats.permutation_test(
        (change.mean(axis=0) * weights, np.zeros(8)),
        lambda x, y: np.sum(x - y),
        permutation_type="samples",
        n_resamples=np.inf,
    )
    assert reference.pvalue == pytest.approx(exact)


def test_seeds_of_a_question_are_not_taken_for_independent() -> None:
    """Six gained questions stay six, however many seeds gained them: p = 2 / 2^6."""
    first, second = np.zeros((5, 40), bool), np.zeros((5, 40), bool)
    first[:, :6] = True
    found = paired_difference(first, second, np.zeros(40, int), seed=0)
    assert found.p_questions == pytest.approx(2 / 2**6, abs=0.002)
    assert found.p_mcnemar == pytest.approx(2 / 2**30)


def test_paired_interval_is_narrower_than_the_intervals_of_both_models() -> None:
    second = answers(10, 300, 0.5)
    first = second | (answers(10, 300, 0.05, seed=1))
    buckets = np.arange(300) % 5
    found = paired_difference(first, second, buckets, seed=0)
    alone = score_interval(second, buckets, seed=0)
    assert found.high - found.low < 0.6 * (alone.high - alone.low)
    assert found.low > 0 and found.p_questions < 0.001 and found.p < 0.05
    by_bucket = bucket_changes(first, second, buckets, seed=0)
    assert by_bucket[None].mean == pytest.approx(found.difference)
    assert np.mean([by_bucket[b].mean for b in range(5)]) == pytest.approx(found.difference)


def test_swapping_the_models_mirrors_the_difference() -> None:
    first, second, buckets = answers(2, 80, 0.6), answers(2, 80, 0.5, seed=5), np.arange(80) % 4
    one, other = (paired_difference(*pair, buckets, seed=0) for pair in ((first, second), (second, first)))
    assert (one.difference, one.gained, one.lost) == (-other.difference, other.lost, other.gained)
    assert one.p == other.p


def test_under_the_null_hypothesis_few_p_values_are_small() -> None:
    rng = np.random.default_rng(0)
    p_values = []
    for _ in range(80):
        flip = rng.random((1, 100)) < 0.5
        a, b = rng.random((3, 100)) < 0.5, rng.random((3, 100)) < 0.5
        p_values.append(
            paired_difference(np.where(flip, a, b), np.where(flip, b, a), np.zeros(100, int), 0).p_questions
        )
    assert np.mean(np.array(p_values) <= 0.05) <= 0.10
    assert np.mean(p_values) == pytest.approx(0.5, abs=0.1)  # three standard errors


def test_mcnemar_by_hand() -> None:
    assert mcnemar(0, 0) == 1.0
    assert mcnemar(5, 0) == pytest.approx(2 / 32)
    assert mcnemar(3, 3) == 1.0


def test_holm_by_hand() -> None:
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.6, 0.5]) == pytest.approx([1.0, 1.0])
    assert holm([0.02]) == [0.02] and holm([]) == []


@given(st.lists(st.floats(0, 1), max_size=30))
def test_holm_is_monotone_never_smaller_and_at_most_one(p_values: list[float]) -> None:
    corrected = holm(p_values)
    assert all(p <= q <= 1.0 for p, q in zip(p_values, corrected, strict=True))
    for (p, c), (q, d) in itertools.combinations(zip(p_values, corrected, strict=True), 2):
        assert (c <= d) if p < q else (c == d) if p == q else (c >= d)
    assert all(
        c <= min(1.0, len(p_values) * p)
        for p, c in zip(p_values, corrected, strict=True)
        if p == min(p_values)
    )


def test_verdict_needs_a_small_corrected_p_and_a_difference() -> None:
    assert verdict(0.02, 0.01) == BETTER
    assert verdict(-0.02, 0.01) == WORSE
    assert verdict(0.02, 0.05) == NO_DIFFERENCE
    assert verdict(0.0, 0.0) == NO_DIFFERENCE


def test_over_sets_is_student_s_t() -> None:
    values = [0.01, 0.03, 0.02, 0.06]
    found = over_sets(values)
    reference = stats.ttest_1samp(values, 0.0)
    ends = reference.confidence_interval(0.95)
    assert found is not None
    assert (found.mean, found.p, found.low, found.high) == pytest.approx(
        (0.03, reference.pvalue, ends.low, ends.high)
    )
    assert over_sets([0.01]) is None and over_sets([]) is None


def test_sets_without_any_spread_have_p_0_or_1() -> None:
    assert over_sets([0.1, 0.1, 0.1]) == (
        pytest.approx(0.1),
        pytest.approx(0.1),
        pytest.approx(0.1),
        0.0,
        0.0,
    )
    same = over_sets([0.0, 0.0])
    assert same is not None and same.p == 1.0


def test_p_is_the_larger_of_questions_and_training_sets() -> None:
    """Three sets that gain 12, 0 and 6 of 40 questions: sure about questions, not about sets."""
    first, second = np.zeros((3, 40), bool), np.zeros((3, 40), bool)
    first[0, :12] = first[2, 12:18] = True
    found = paired_difference(first, second, np.zeros(40, int), seed=0)
    t = stats.ttest_1samp([12 / 40, 0.0, 6 / 40], 0.0)
    assert found.p_questions < 0.001 < 0.05 < t.pvalue
    assert found.p == found.p_sets == pytest.approx(t.pvalue)
    assert found.low <= t.confidence_interval(0.95).low < 0 < found.difference < found.high
    one = paired_difference(first[:1], second[:1], np.zeros(40, int), seed=0)
    assert (one.p_sets, one.error_sets, one.p) == (None, None, one.p_questions)


def test_detectable_is_what_the_weaker_unit_allows() -> None:
    first, second = np.zeros((3, 40), bool), np.zeros((3, 40), bool)
    first[0, :12] = first[2, 12:18] = True
    found = paired_difference(first, second, np.zeros(40, int), seed=0)
    error = np.std([12 / 40, 0.0, 6 / 40], ddof=1) / np.sqrt(3)
    power = stats.t(2).ppf(1 - 0.05 / 4 / 2) + stats.t(2).ppf(0.8)
    assert found.detectable(3, 4) == pytest.approx(power * error)
    assert smallest_effect(0.01, None) == pytest.approx(0.01 * 2.8016, rel=1e-4)  # 1.960 + 0.8416
    assert paired_difference(first[:1], second[:1], np.zeros(40, int), 0).detectable(1, 4) is None


@pytest.mark.parametrize(("sets", "questions"), list(itertools.product((3, 5, 10), (240, 9_555))))
def test_verdicts_hold_the_false_positive_rate_over_sets_and_questions(sets: int, questions: int) -> None:
    """No difference on average over training sets; each set has one of its own, of 2 points, and its questions."""
    runs = 80
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(statistics, "FLIPS", 1_000)
        found = [null_comparison(sets, questions, 0.02, seed) for seed in range(runs)]
    error = np.sqrt(0.05 * 0.95 / runs)
    joint = np.mean([max(p) < 0.05 for p in found])
    assert joint <= 0.05 + 2.5 * error
    assert np.mean([of_sets < 0.05 for _, of_sets in found]) == pytest.approx(0.05, abs=3.1 * error)
    if questions > 1_000:  # sets are what decides: questions alone would be wrong far more often
        assert np.mean([of_questions < 0.05 for of_questions, _ in found]) > 0.2


@pytest.mark.parametrize(
    ("correct", "buckets", "words"),
    [
        ([[True]], [0, 1], "do not fit"),
        ([True, False], [0, 1], "do not fit"),
        (np.zeros((2, 0), bool), [], "no question"),
        (np.zeros((0, 2), bool), [0, 1], "no question"),
    ],
)
def test_wrong_shapes_are_refused(correct: object, buckets: list[int], words: str) -> None:
    with refused(words):
        score_interval(correct, buckets, seed=0)  # type: ignore[arg-type]


def test_models_of_different_shapes_are_not_compared() -> None:
    with refused("2 training sets x 3 questions against 1 x 3", value=((2, 3), (1, 3))):
        paired_difference(np.ones((2, 3), bool), np.ones((1, 3), bool), [0, 0, 0], seed=0)
