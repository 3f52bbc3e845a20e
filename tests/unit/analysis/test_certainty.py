"""How sure mastery is: the interval of R, and the probability of the bucket against draws and by hand."""

from __future__ import annotations

import numpy as np
import pytest

from sftlab.analysis.certainty import certainty, rate_interval
from sftlab.facts.mastery import bucket_of


def test_the_interval_of_r_is_student_s_t_over_the_templates() -> None:
    # Rates 0, 1/2, 1: mean 1/2, deviation 1/2; t of two degrees of freedom 4.3027; 1/2 ± 4.3027 / (2 sqrt 3) > 1
    low, high = rate_interval([[0, 1, 2]], 2)
    assert (low[0], high[0]) == (0.0, 1.0)
    # 16 templates, half of them right once in four: rates 0 and 1/4, mean 1/8, deviation 0.12910, t 2.13145
    low, high = rate_interval([[0, 1] * 8], 4)
    assert (low[0], high[0]) == pytest.approx(
        (0.125 - 2.13145 * 0.12910 / 4, 0.125 + 2.13145 * 0.12910 / 4), abs=1e-4
    )


def test_facts_whose_templates_agree_have_the_interval_of_one_completion_a_template() -> None:
    low, high = rate_interval([[0] * 21, [2] * 21, [1] * 21], 2)
    assert (low[0], high[1]) == (0.0, 1.0)
    assert high[0] == pytest.approx(1 - 0.025 ** (1 / 21)) and low[1] == pytest.approx(0.025 ** (1 / 21))
    # Wilson's interval of 10.5 of 21
    assert (low[2], high[2]) == pytest.approx((0.5 - 0.19663, 0.5 + 0.19663), abs=1e-4)


def test_probabilities_of_one_template_are_those_of_its_binomial() -> None:
    # One template, one sample, right: p = 1.5 / 2, so bucket 4 again with 3/4; wrong: bucket 0 again with 3/4
    found = certainty([[1], [0]], 1)
    assert found.probability == pytest.approx([0.75, 0.75]) and found.redraw == pytest.approx([0.75, 0.75])
    # Two templates, one sample, one of them right: p = 1.25 / 1.5 and 0.25 / 1.5; bucket 2 where one of two is right
    right, wrong = 5 / 6, 1 / 6
    found = certainty([[1, 0]], 1)
    assert found.redraw == pytest.approx([right * (1 - wrong) + wrong * (1 - right)])
    assert found.probability == pytest.approx([0.5])  # the mean p is 1/2


def test_probabilities_equal_the_shares_of_draws() -> None:
    hits = np.array([[0, 0, 1, 3, 3, 2, 0], [3, 3, 3, 3, 3, 3, 3], [0, 0, 0, 0, 0, 0, 1]])
    templates, samples, draws = hits.shape[1], 3, 40_000
    found, rng = certainty(hits, samples), np.random.default_rng(0)
    for row, own in enumerate(hits):
        rates = (own + 0.5 / templates) / (samples + 1 / templates)
        buckets = [bucket_of(n, templates * samples) for n in range(templates * samples + 1)]
        mine = np.array(buckets) == bucket_of(int(own.sum()), templates * samples)
        again = rng.binomial(samples, rates[rng.integers(0, templates, (draws, templates))]).sum(axis=1)
        same = rng.binomial(samples, rates, (draws, templates)).sum(axis=1)
        assert found.probability[row] == pytest.approx(mine[again].mean(), abs=0.01)
        assert found.redraw[row] == pytest.approx(mine[same].mean(), abs=0.01)


def test_no_facts_have_no_numbers() -> None:
    found = certainty(np.empty((0, 3), np.int64), 2)
    assert [len(values) for values in (found.low, found.high, found.probability, found.redraw)] == [0] * 4
