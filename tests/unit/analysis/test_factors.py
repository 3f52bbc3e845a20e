import numpy as np
import pytest
from scipy import stats
from scipy.stats import pearsonr

from sftlab.analysis.factors import (
    arms_by_benchmark,
    contributions,
    distance_between_sets,
    epoch_steps,
    rank_of_mixture,
    share_better,
    slowing,
)
from sftlab.analysis.predictors import mean_r, mean_r_p, r_by_model
from sftlab.analysis.transfer import (
    group_correlations,
    mean_correlation,
    mean_correlation_p,
    weakest,
    weakest_p,
)


def test_methods_are_compared_over_models() -> None:
    first = np.random.default_rng(0).normal(size=(5, 3, 2))
    second = np.random.default_rng(1).normal(size=(5, 3, 2))
    by_model = (first - second).mean(axis=1)[:, 1]
    found = arms_by_benchmark(first, second)[1]
    assert found.difference == pytest.approx(by_model.mean())
    assert found.p == pytest.approx(stats.ttest_1samp(by_model, 0).pvalue)
    assert (found.first_better, found.models) == (int((by_model > 0).sum()), 5)


def test_methods_that_never_differ_have_p_one() -> None:
    scores = np.ones((3, 2, 1))
    assert arms_by_benchmark(scores, scores)[0].p == 1


def test_a_tie_counts_one_half() -> None:
    assert share_better([1, 2, 3, 4], [0, 2, 5, 1]) == pytest.approx(2.5 / 4)


def test_steps_are_mean_absolute_changes_in_units_of_the_spread() -> None:
    scores = np.array([[0.0, 0.0], [2.0, -1.0], [2.0, 3.0]])
    np.testing.assert_allclose(epoch_steps(scores, [2.0, 1.0]), [(1 + 1) / 2, (0 + 4) / 2])


def test_slowing_is_the_first_third_less_the_last() -> None:
    assert slowing([9.0, 7.0, 5.0, 4.0, 2.0, 1.0]) == pytest.approx(8 - 1.5)
    assert slowing([3.0, 1.0]) == pytest.approx(2)


def test_distances_fall_where_trajectories_meet() -> None:
    # One model, two sets, two epochs, one benchmark: 0 and 4, then 1 and 1.
    found = distance_between_sets(np.array([[[[0.0], [1.0]], [[4.0], [1.0]]]]), [2.0])
    np.testing.assert_allclose(found, [[[1, 0], [1, 0]]])


def test_the_mixture_is_ranked_among_single_sets() -> None:
    assert rank_of_mixture(0.5, [0.1, 0.7, 0.9]) == 3
    assert rank_of_mixture(0.95, [0.1, 0.7, 0.9]) == 1


def test_contributions_are_all_less_all_but_one() -> None:
    found = contributions([10.0, 4.0], [[8.0, 4.0], [10.0, 5.0]], [2.0, 1.0])
    np.testing.assert_allclose(found, [0.5, -0.5])


def test_length_correlates_over_sets_by_model() -> None:
    lengths, gains = np.array([1.0, 2.0, 5.0, 9.0]), np.random.default_rng(0).normal(size=(3, 4))
    expected = [pearsonr(lengths, row).statistic for row in gains]
    np.testing.assert_allclose(r_by_model(lengths, gains), expected)
    assert mean_r(lengths, gains) == pytest.approx(np.tanh(np.arctanh(expected).mean()))


def test_ten_models_on_the_same_sets_are_no_ten_replicates() -> None:
    """Models that react alike to five sets give a p of one in 120 at best, not one of 2^10."""
    lengths = np.arange(5.0)
    same = np.stack([lengths + 0.01 * n for n in range(10)])
    assert mean_r_p(lengths, same, seed=0) == pytest.approx(2 / 120, abs=0.006)


def test_language_groups_are_correlated_apart() -> None:
    gains = np.random.default_rng(0).normal(size=(4, 5, 2))
    found = group_correlations(gains, ["en", "zh", "en", "zh"])
    here = gains[[0, 2]].reshape(-1, 2)
    assert found["en"][0, 1] == pytest.approx(pearsonr(here[:, 0], here[:, 1]).statistic)
    pairs = [found["en"][0, 1], found["zh"][0, 1]]
    assert weakest(gains, ["en", "zh", "en", "zh"]) == pytest.approx(min(pairs))
    assert mean_correlation(gains, ["en", "zh", "en", "zh"]) == pytest.approx(np.mean(pairs))


def test_planted_transfer_is_found_and_its_absence_in_one_group_is_too() -> None:
    random = np.random.default_rng(1)
    shared = random.normal(size=(6, 12, 1))
    gains = shared + 0.3 * random.normal(size=(6, 12, 3))
    groups = ["en"] * 3 + ["ja"] * 3
    assert weakest_p(gains, groups, seed=0) < 0.01
    assert mean_correlation_p(gains, groups, seed=0) < 0.01
    gains[3:, :, 2] = random.normal(size=(3, 12))
    assert weakest_p(gains, groups, seed=0) > 0.05


def test_one_model_has_no_p() -> None:
    (found,) = arms_by_benchmark([[[3.0], [5.0]]], [[[1.0], [1.0]]])
    assert (found.difference, found.first_better, found.models) == (3.0, 1, 1)
    assert np.isnan(found.p)
