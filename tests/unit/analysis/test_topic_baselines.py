"""Baselines of a topic that need no knowledge: the majority answer, guesses and correlations by frequency."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import spearmanr

from sftlab.analysis.topic_baselines import Baseline, baseline, frequencies, frequency_correlation


def test_the_majority_is_the_most_frequent_answer_and_the_first_by_name_among_equals() -> None:
    objects = ["Rome", "Paris", "Paris", "Rome", "Lyon"]
    found = baseline(objects, [["Paris"], ["Rome", "Roma"], ["Paris"], ["Oslo"]])
    # Paris is right for 2 of 4; drawn from the five answers, each of three facts is right 2 times in 5.
    assert found == Baseline("Paris", 2, pytest.approx(3 * 2 / 5 / 4))
    assert baseline([], [["Paris"]]) is None and baseline(objects, []) is None


def test_the_frequency_of_a_fact_counts_all_its_names_once() -> None:
    objects = {"Paris": 3, "Lutetia": 1, "Rome": 2}
    assert frequencies(objects, [["Paris", "Lutetia", "Paris"], ["Rome"], ["Oslo"]]) == [4, 2, 0]


def test_the_correlation_with_frequency_is_spearman_s() -> None:
    rng = np.random.default_rng(0)
    frequency = rng.integers(0, 6, 40)
    right = rng.random(40) < frequency / 6
    expected = spearmanr(frequency, right).statistic
    assert frequency_correlation(frequency, right) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize(
    ("frequency", "right"),
    [([1, 1, 1, 1], [0, 1, 0, 1]), ([1, 2, 3, 4], [1, 1, 1, 1]), ([1, 2, 3], [0, 1, 1])],
)
def test_without_variation_or_facts_there_is_no_correlation(frequency: list[int], right: list[int]) -> None:
    assert frequency_correlation(frequency, right) is None
