import numpy as np
import pytest
from scipy.stats import binom

from sftlab.analysis.score_checks import (
    at_least,
    clearly_below,
    coincidence,
    copied_rows,
    largest_gap_to_mean,
    share_below,
)


def scores(rows: int = 12, columns: int = 10, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).uniform(0, 100, size=(rows, columns)).round(2)


def test_a_planted_copy_is_found() -> None:
    values = scores()
    values[7, :9] = values[2, :9]
    found = copied_rows(values, values)
    assert [(copy.first, copy.second, copy.equal, copy.compared) for copy in found] == [
        (2, 7, tuple(range(9)), 10)
    ]
    assert found[0].p < 1e-12


def test_columns_in_which_everything_agrees_are_no_evidence() -> None:
    values = scores()
    values[:, :8] = 0.0
    assert copied_rows(values, values) == []


def test_missing_scores_are_not_compared() -> None:
    values = scores()
    values[7] = values[2]
    values[7, :4] = np.nan
    (found,) = copied_rows(values, values)
    assert (len(found.equal), found.compared) == (6, 6)


def test_random_tables_hold_no_copies() -> None:
    assert not any(
        copied_rows(values, values) for values in (scores(20, 12, seed).round(0) for seed in range(30))
    )


def test_coincidence_is_the_share_of_equal_pairs() -> None:
    # 1, 1, 1, 2: three of six pairs agree. All different: the floor.
    np.testing.assert_allclose(coincidence(np.array([[1, 1], [1, 2], [1, 3], [2, 4]])), [0.5, 0.001])


def test_the_tail_of_equal_chances_is_binomial() -> None:
    assert at_least([0.2] * 10, 4) == pytest.approx(binom.sf(3, 10, 0.2))
    assert at_least([0.1, 0.5], 2) == pytest.approx(0.05)
    assert at_least([0.3], 0) == pytest.approx(1)


def test_missing_scores_are_neither_above_nor_below_chance() -> None:
    assert share_below([10.0, 30.0, np.nan, 25.0], 25) == pytest.approx(1 / 3)
    assert np.isnan(share_below([np.nan], 25))


def test_clearly_below_chance_is_what_guessing_hardly_ever_scores() -> None:
    level = clearly_below(25, 1000)
    assert binom.cdf(level / 100 * 1000 - 1, 1000, 0.25) < 0.001 <= binom.cdf(level / 100 * 1000, 1000, 0.25)


def test_a_total_is_compared_with_the_mean_of_its_parts() -> None:
    assert largest_gap_to_mean([2.0, 5.1], [[1.0, 3.0], [5.0, 5.0]]) == pytest.approx(0.1)
    assert np.isnan(largest_gap_to_mean([np.nan], [[1.0, 3.0]]))
