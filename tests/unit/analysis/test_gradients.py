"""Norms, cosines and shares of gradients from their sums, against whole vectors; the area under the ROC curve."""

from __future__ import annotations

import numpy as np
import pytest

from sftlab.analysis.gradients import Mean, cosines, mean, norms, shares
from sftlab.analysis.separation import area


def test_norms_cosines_and_shares_equal_those_of_whole_vectors() -> None:
    draw = np.random.default_rng(0)
    gradients, chosen = draw.normal(size=(6, 3, 5)), draw.random((3, 5)) < 0.4
    known = [1, 4, 5]
    average = gradients[known].mean(axis=0)
    squared, along = (gradients**2).sum(axis=2), (gradients * average).sum(axis=2)
    for group in ([0, 1, 2], [1], [0, 2]):
        whole = gradients[:, group].reshape(6, -1)
        assert norms(squared, group) == pytest.approx(np.linalg.norm(whole, axis=1))
        found = cosines(squared, along, (average**2).sum(axis=1), group, known, len(known))
        for row in range(6):
            others = whole[[k for k in known if k != row]].mean(axis=0)
            wanted = whole[row] @ others / np.linalg.norm(whole[row]) / np.linalg.norm(others)
            assert found[row] == pytest.approx(wanted)
        part = (gradients**2 * chosen).sum(axis=2)
        wanted_share = (whole**2 * chosen[group].ravel()).sum(axis=1) / (whole**2).sum(axis=1)
        assert shares(part, squared, group) == pytest.approx(wanted_share)


def test_what_is_not_defined_is_no_number_and_left_out_of_means() -> None:
    squared, along = np.array([[4.0], [0.0]]), np.array([[4.0], [0.0]])
    assert np.isnan(
        cosines(squared, along, np.array([4.0]), [0], [0], 1)
    ).all()  # nothing is left of the mean
    assert shares(np.array([[1.0], [0.0]]), squared, [0]).tolist() == pytest.approx(
        [0.25, np.nan], nan_ok=True
    )
    assert mean(np.array([1.0, 3.0, np.nan])) == Mean(2.0, 1.0)
    assert (mean(np.array([5.0])), mean(np.array([np.nan]))) == (Mean(5.0, None), None)


def test_the_area_is_the_share_of_pairs_in_order_and_ties_count_half() -> None:
    draw = np.random.default_rng(1)
    scores, positive = draw.integers(0, 6, 40).astype(float), draw.random(40) < 0.4
    found = area(scores, positive)
    pairs = [1.0 if a > b else 0.5 if a == b else 0.0 for a in scores[positive] for b in scores[~positive]]
    assert found is not None and found.value == pytest.approx(np.mean(pairs))
    assert found.low < found.value < found.high


def test_the_interval_of_an_area_is_delong_s() -> None:
    # Positives 3 and 1, negatives 2 and 0: of the positives 1 and 1/2 of the negatives are below, of the negatives 1/2
    # and 1 of the positives above. Each has the variance 1/8, so the error is sqrt(1/8/2 + 1/8/2).
    found = area([3.0, 1.0, 2.0, 0.0], [True, True, False, False])
    assert found is not None and found.value == 0.75
    assert (found.low, found.high) == (pytest.approx(0.75 - 1.96 * np.sqrt(1 / 8)), 1.0)
    assert area([1.0, 2.0], [True, True]) is None
    single = area([1.0, 2.0, 0.0], [True, False, False])
    assert single is not None and single.value == 0.5 and np.isnan(single.low)
