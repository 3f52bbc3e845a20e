"""Predictions of gains and the places that are certain, on data whose truth is known."""

from __future__ import annotations

import numpy as np
import pytest

from sftlab.analysis.ranking import Known, leave_one_model_out, mean_draws, places, predict


def known(noise: float, sets: int = 8, models: int = 4, per_model: float = 0.0) -> Known:
    """Gains 1 - 0.5 log perplexity + 0.2 log length, plus a set's effect and a base's."""
    rng = np.random.default_rng(1)
    x = rng.uniform(0, 4, (models, sets, 2))
    gains = 1 - 0.5 * x[..., 0] + 0.2 * x[..., 1] + noise * rng.normal(size=sets)
    gains = gains + per_model * np.arange(models)[:, None]
    names = [(f"m{m}", f"s{s}") for m in range(models) for s in range(sets)]
    return Known([m for m, _ in names], [s for _, s in names], x.reshape(-1, 2), gains.reshape(-1))


def test_exact_law_is_found_and_predicted_without_width() -> None:
    found = predict(known(0.0), [[1.0, 2.0], [3.0, 0.0]], 0)
    assert found.coefficients == pytest.approx([1.0, -0.5, 0.2])
    assert found.gain == pytest.approx([0.9, -0.5])
    assert found.low == pytest.approx(found.gain) and found.high == pytest.approx(found.gain)
    assert found.r2 == pytest.approx(1.0)
    assert places(found.draws) == [(1, 1), (2, 2)]


def test_interval_holds_the_unknown_effect_of_another_set() -> None:
    found = predict(known(0.5), [[1.0, 2.0], [1.1, 2.0]], 0)
    assert np.all(found.high - found.low > 0.5)
    assert places(found.draws) == [(1, 2), (1, 2)]


def test_many_bases_do_not_make_up_for_few_sets() -> None:
    few, many = (predict(known(0.5, models=n), [[1.0, 2.0]], 0) for n in (2, 40))
    assert (many.high - many.low)[0] > 0.5 * (few.high - few.low)[0]


def test_r2_is_of_bases_that_the_fit_has_not_seen() -> None:
    data = known(0.3, per_model=0.5)
    missed = spread = 0.0
    for name in ("m0", "m1", "m2", "m3"):
        left = np.array(data.models) == name
        design = np.column_stack([np.ones(len(left)), data.predictors])
        fitted = np.linalg.solve(design[~left].T @ design[~left], design[~left].T @ data.gains[~left])
        missed += float(np.sum((data.gains[left] - design[left] @ fitted) ** 2))
        spread += float(np.sum((data.gains[left] - data.gains[~left].mean()) ** 2))
    assert leave_one_model_out(data) == pytest.approx(1 - missed / spread)


@pytest.mark.parametrize(("sets", "models", "enough"), [(5, 2, True), (4, 2, False), (5, 1, False)])
def test_prediction_needs_two_sets_more_than_coefficients_and_two_bases(
    sets: int, models: int, enough: bool
) -> None:
    assert known(0.1, sets, models).enough is enough


def test_places_are_those_that_differences_allow() -> None:
    rng = np.random.default_rng(0)
    draws = rng.normal(size=(2000, 3)) + np.array([10.0, 10.0, 0.0])
    assert places(draws) == [(1, 2), (1, 2), (3, 3)]
    # Draws that rise and fall together are distinguished by their differences, not by their own intervals.
    shared = 10 * rng.normal(size=(2000, 1)) + np.array([1.0, 0.0])
    assert places(shared) == [(1, 1), (2, 2)]


def test_mean_draws_are_of_totals() -> None:
    assert mean_draws([2.0, 2.0], [1, 1], 0) == pytest.approx(np.full(2000, 2.0))
    draws = mean_draws([1.0, 9.0], [1, 3], 0)
    assert sorted(set(np.round(draws, 6))) == [1.0, 2.5, 3.0]
