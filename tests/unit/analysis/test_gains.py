import numpy as np
import pytest

from sftlab.analysis.gains import (
    BASELINE_FREE,
    DOUBLE_CENTRED,
    STANDARDISED,
    TREATMENTS,
    baseline_free,
    double_centred,
    gains,
    min_max_scaled,
    spread_by_benchmark,
    standardised,
    treated,
)
from tests.support.refusals import refused

# Two models, two sets, two benchmarks.
SCORES = np.array([[[10.0, 0.5], [14.0, 0.1]], [[20.0, 0.7], [28.0, 0.7]]])
BASE = np.array([[8.0, 0.3], [20.0, 0.5]])


def test_gains_are_scores_less_the_base_of_the_same_model() -> None:
    expected = [[[2, 0.2], [6, -0.2]], [[0, 0.2], [8, 0.2]]]
    np.testing.assert_allclose(gains(SCORES, BASE), expected)


def test_gains_refuse_baselines_of_another_shape() -> None:
    with refused(r"\(2, 2, 2\) do not match baselines of shape \(2, 1\)"):
        gains(SCORES, BASE[:, :1])


def test_spread_is_the_population_standard_deviation_of_a_benchmarks_gains() -> None:
    # 2, 6, 0, 8: mean 4, squared deviations 4, 4, 16, 16, mean 10.
    np.testing.assert_allclose(spread_by_benchmark(gains(SCORES, BASE)), [np.sqrt(10), np.sqrt(0.03)])


def test_standardised_gains_have_spread_one() -> None:
    values = standardised(gains(SCORES, BASE))
    assert values[0, 1, 0] == pytest.approx(6 / np.sqrt(10))
    np.testing.assert_allclose(values.reshape(-1, 2).std(axis=0), [1, 1])


def test_a_constant_benchmark_stays_constant_and_is_not_divided_by_rounding() -> None:
    values = np.full((3, 4, 1), 0.1) + np.array([0.2])
    np.testing.assert_array_equal(standardised(values), values)


def test_baseline_free_gains_are_centred_over_sets_then_scaled() -> None:
    # Deviations from the mean of the two sets: -2, 2, -4, 4 of the first benchmark.
    values = baseline_free(gains(SCORES, BASE))[..., 0]
    np.testing.assert_allclose(values, np.array([[-2, 2], [-4, 4]]) / np.sqrt(10))


@pytest.mark.parametrize("name", [BASELINE_FREE, DOUBLE_CENTRED])
def test_no_baseline_changes_what_is_free_of_it(name: str) -> None:
    rng = np.random.default_rng(0)
    scores, base, other = rng.normal(size=(4, 5, 3)), rng.normal(size=(4, 3)), 100 * rng.normal(size=(4, 3))
    np.testing.assert_allclose(
        treated(name, gains(scores, base)), treated(name, gains(scores, other)), atol=1e-10
    )


def test_a_copied_baseline_changes_standardised_gains() -> None:
    rng = np.random.default_rng(0)
    scores, base = rng.normal(size=(4, 5, 3)), rng.normal(size=(4, 3))
    copied = base.copy()
    copied[1] = copied[0]
    first, second = treated(STANDARDISED, gains(scores, base)), treated(STANDARDISED, gains(scores, copied))
    assert np.abs(first - second).max() > 0.1


def test_double_centred_gains_have_mean_zero_over_sets_and_over_benchmarks() -> None:
    values = double_centred(np.random.default_rng(1).normal(size=(3, 4, 5)))
    np.testing.assert_allclose(values.mean(axis=1), 0, atol=1e-12)
    np.testing.assert_allclose(values.mean(axis=2), 0, atol=1e-12)


def test_treatments_by_name_keep_the_shape() -> None:
    cells = gains(SCORES, BASE)
    assert {name: treated(name, cells).shape for name in TREATMENTS} == dict.fromkeys(TREATMENTS, (2, 2, 2))


def test_columns_are_scaled_to_minus_one_and_one() -> None:
    table = np.array([[0.0, 5.0], [1.0, 5.0], [4.0, 5.0]])
    np.testing.assert_allclose(min_max_scaled(table), [[-1, 0], [-0.5, 0], [1, 0]])
