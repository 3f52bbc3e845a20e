from itertools import product

import numpy as np
import pytest
from scipy import stats

from sftlab.analysis import effects
from sftlab.analysis.decisions import NEGATIVE, OPEN, POSITIVE, word
from sftlab.analysis.effects import (
    bootstrap_means,
    cluster_weights,
    detectable,
    fisher_mean,
    jackknife_effect,
    jackknife_p,
    mean_effect,
    permutation_p,
    sign_flip_p,
)
from tests.support.refusals import refused


def rng() -> np.random.Generator:
    return np.random.default_rng(0)


def test_sign_flips_of_few_clusters_are_all_counted() -> None:
    # Of 16 patterns of +-1, +-2, +-3, +-4 four have a sum of at least 8: 10, 8, and their negatives.
    sums = [
        abs(sum(s * v for s, v in zip(signs, (1, 2, 3, 4), strict=True)))
        for signs in product((1, -1), repeat=4)
    ]
    assert sum(value >= 8 for value in sums) == 4
    assert sign_flip_p([-1, 2, 3, 4], rng()) == 4 / 16


def test_the_smallest_p_of_ten_clusters_is_two_in_1024() -> None:
    assert sign_flip_p(np.arange(1.0, 11), rng()) == 2 / 1024


def test_sign_flips_of_many_clusters_agree_with_the_normal_approximation() -> None:
    values = rng().normal(0.15, 1, size=200)
    z = values.sum() / np.sqrt(np.square(values).sum())
    assert sign_flip_p(values, rng()) == pytest.approx(2 * stats.norm.sf(abs(z)), abs=0.02)


def test_a_permuted_value_that_is_as_far_counts() -> None:
    assert permutation_p([-1.0, 0.0, 1.0], 1.0) == 3 / 4
    assert permutation_p([-1.0, 0.0, 1.0], 1.0, two_sided=False) == 2 / 4


def test_the_effect_is_the_mean_and_its_interval_holds_it() -> None:
    values = np.array([[1.0, 2.0], [3.0, 4.0], [5.0, 9.0]])
    effect = mean_effect(values, ("models", "data sets"), seed=1)
    assert effect.value == 4
    assert effect.low < 4 < effect.high
    assert effect.clusters == 3
    t = 4 / np.sqrt(np.var([1.5, 3.5, 7.0], ddof=1) / 3)
    assert effect.p == pytest.approx(1 - t / np.sqrt(2 + t**2))  # Student's t with two degrees of freedom
    assert effect.interval_over == "cluster bootstrap over models and data sets"
    assert effect.p_by == "t test over 3 models"
    assert effect == mean_effect(values, ("models", "data sets"), seed=1)


def test_flips_may_be_of_the_second_axis() -> None:
    effect = mean_effect(np.array([[1.0, -1.0, 3.0]] * 2), ("models", "data sets"), seed=0, flip=1)
    assert effect.p_by == "t test over 3 data sets"


def test_few_clusters_without_spread_leave_only_their_signs() -> None:
    assert mean_effect(np.full(6, 0.5), ("models",), seed=0).p == 2 / 64
    assert mean_effect(np.zeros(6), ("models",), seed=0).p == 1.0


def test_one_cluster_has_no_effect() -> None:
    with refused("over models has 1 of them", value=1, expected="two or more"):
        mean_effect(np.array([1.0]), ("models",), seed=0)


def test_the_bootstrap_of_a_mean_has_its_standard_error() -> None:
    values = rng().normal(size=50)
    draws = bootstrap_means(values, rng(), resamples=20_000)
    assert draws.std() == pytest.approx(values.std() / np.sqrt(50), rel=0.03)


def test_weights_of_clusters_sum_to_one() -> None:
    np.testing.assert_allclose(cluster_weights(5, rng(), 10).sum(axis=1), 1)


def test_the_detectable_effect_is_found_with_the_promised_power() -> None:
    """A t-test finds an effect of the detectable size in 80 % of samples."""
    n, random = 10, rng()
    size = detectable(1 / np.sqrt(n), n)
    found = stats.ttest_1samp(random.normal(size, 1, size=(4000, n)), 0, axis=1).pvalue < 0.05
    assert found.mean() == pytest.approx(0.8, abs=0.03)


def test_the_jackknife_of_a_mean_is_the_t_test() -> None:
    values = rng().normal(0.4, 1, size=12)
    without = [np.delete(values, n).mean() for n in range(12)]
    assert jackknife_p(without, values.mean()) == pytest.approx(stats.ttest_1samp(values, 0).pvalue)
    effect = jackknife_effect(without, float(values.mean()), 0.5, "data sets", "a test")
    low, high = stats.t.interval(0.95, 11, values.mean(), stats.sem(values))
    assert (effect.low, effect.high) == pytest.approx((low, high))


def test_correlations_average_through_fishers_z() -> None:
    assert fisher_mean([0.5, 0.5]) == pytest.approx(0.5)
    assert fisher_mean([0.0, 0.9]) == pytest.approx(np.tanh(np.arctanh(0.9) / 2))


@pytest.mark.parametrize(("axes", "models"), [(("models",), 6), (("models", "data sets"), 10)])
def test_false_positives_stay_below_the_level(
    axes: tuple[str, ...], models: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without an effect at most one in twenty decisions is no 'open', though models and sets differ at random."""
    monkeypatch.setattr(effects, "RESAMPLES", 100)
    random, decided, times = rng(), 0, 300
    for _ in range(times):
        cells = random.standard_t(4, size=models)[:, None] + random.normal(size=(models, 8))
        values = cells.mean(axis=1) if len(axes) == 1 else cells
        effect = mean_effect(values, axes, seed=int(random.integers(2**32)))
        decided += word(effect, effect.p, POSITIVE) != OPEN
        assert word(effect, effect.p, POSITIVE) in (OPEN, "agrees" if effect.value > 0 else "differs")
        assert (word(effect, effect.p, NEGATIVE) == OPEN) == (word(effect, effect.p, POSITIVE) == OPEN)
    # 5 % of 300 is 15; three standard deviations are 11.
    assert decided <= 26


def test_a_planted_effect_is_found() -> None:
    effect = mean_effect(rng().normal(2, 1, size=10), ("models",), seed=0)
    assert word(effect, effect.p, POSITIVE) == "agrees"
    assert word(effect, effect.p, NEGATIVE) == "differs"
