"""Change by layer, across models of different depth, and with gains."""

from __future__ import annotations

import numpy as np
import pytest

from sftlab.analysis.layers import cross_model, gain_correlations, mean_correlation, on_grid, positions


def test_positions_are_the_middles_of_equal_parts() -> None:
    assert positions(4).tolist() == [0.125, 0.375, 0.625, 0.875]


def test_grid_interpolates_between_layers_and_is_constant_beyond_the_ends() -> None:
    # Layers at 0.25 and 0.75; four points at 0.125, 0.375, 0.625, 0.875.
    assert on_grid([1.0, 3.0], 4).tolist() == [1.0, 1.5, 2.5, 3.0]
    assert on_grid([[1.0, 3.0], [0.0, 0.0]], 4).shape == (2, 4)
    values = [5.0, 1.0, 2.0, 8.0]
    assert on_grid(values, 4).tolist() == values


def test_correlation_of_change_and_gain_is_that_of_numpy_at_every_layer() -> None:
    rng = np.random.default_rng(0)
    change, gain = rng.random((5, 20)), rng.random(5)
    found = gain_correlations({"m": change}, {"m": gain})
    wanted = [np.corrcoef(change[:, layer], gain)[0, 1] for layer in range(20)]
    assert found[0] == pytest.approx(wanted)


def test_mean_over_models_goes_through_fisher_z() -> None:
    found = mean_correlation([[0.0, 0.9], [0.0, 0.1]])
    assert found == pytest.approx([0.0, np.tanh((np.arctanh(0.9) + np.arctanh(0.1)) / 2)])


def test_models_that_change_alike_correlate_and_opposite_ones_do_not() -> None:
    change = np.array([[1.0, 5.0], [2.0, 3.0], [4.0, 1.0]])
    assert cross_model([change, 2 * change + 1]) == pytest.approx(1.0, abs=1e-6)
    assert cross_model([change, -change]) == pytest.approx(-1.0, abs=1e-6)
    # Three models: pairs (a, a), (a, -a), (a, -a).
    found = cross_model([change, change, -change])
    assert (found < 0).all()
