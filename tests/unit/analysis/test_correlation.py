"""Correlations against scipy and by hand, pooled and within groups."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from sftlab.analysis.correlation import correlate

DRAW = np.random.default_rng(0)
XS = DRAW.normal(size=40)
YS = 0.6 * XS + DRAW.normal(size=40)


def test_coefficients_are_scipys() -> None:
    rho, r = correlate(list(XS), list(YS)), correlate(list(XS), list(YS), ranks=False)
    assert rho is not None and rho.value == pytest.approx(stats.spearmanr(XS, YS).statistic)
    assert r is not None and r.value == pytest.approx(stats.pearsonr(XS, YS).statistic)
    tied = correlate([1, 1, 2, 2, 3], [1, 2, 2, 3, 3])
    assert tied is not None
    assert tied.value == pytest.approx(stats.spearmanr([1, 1, 2, 2, 3], [1, 2, 2, 3, 3]).statistic)


def test_interval_is_a_percentile_bootstrap_over_points() -> None:
    found = correlate(list(XS), list(YS), ranks=False)
    reference = stats.bootstrap(
        (XS, YS), lambda x, y: stats.pearsonr(x, y).statistic, paired=True, vectorized=False,
        method="percentile", n_resamples=2_000, rng=1,
    ).confidence_interval  # fmt: skip
    assert found is not None and found.points == 40
    assert (found.low, found.high) == pytest.approx((reference.low, reference.high), abs=0.04)


def test_within_groups_differences_between_them_do_not_count() -> None:
    xs, ys = [1.0, 2, 3, 11, 12, 13], [3.0, 2, 1, 13, 12, 11]
    pooled, within = correlate(xs, ys), correlate(xs, ys, within="aaabbb")
    assert pooled is not None and pooled.value > 0
    assert within is not None and within.value == pytest.approx(-1)


def test_few_points_and_constants_have_none() -> None:
    assert correlate([1, 2, 3], [1, 2, 3]) is None
    assert correlate([1, 1, 1, 1], [1, 2, 3, 4]) is None
    assert correlate([1, 2, 3, 4], [1, 2, 3, 4], within="abcd") is None
    assert correlate(list(XS), list(YS), seed=3) == correlate(list(XS), list(YS), seed=3)
