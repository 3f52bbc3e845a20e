"""Predictors that each model has its values of, such as the perplexity of the sets under a base."""

from __future__ import annotations

import numpy as np
import pytest

from sftlab.analysis.predictors import mean_r_of_each_p, r_of_each


def test_r_of_each_model_is_that_of_its_rows() -> None:
    rng = np.random.default_rng(1)
    x, y = rng.random((3, 6)), rng.random((3, 6))
    assert r_of_each(x, y) == pytest.approx([np.corrcoef(x[m], y[m])[0, 1] for m in range(3)])


def test_p_is_small_for_a_relation_that_all_models_have_and_large_for_none() -> None:
    rng = np.random.default_rng(2)
    x = np.arange(8.0) + rng.normal(0, 0.1, (4, 8))
    assert mean_r_of_each_p(x, -x, seed=0) < 0.001
    assert mean_r_of_each_p(rng.random((4, 8)), rng.random((4, 8)), seed=0) > 0.05
    assert mean_r_of_each_p(x, -x, seed=0) == mean_r_of_each_p(x, -x, seed=0)
