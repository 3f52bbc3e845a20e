"""KL divergence of the first answer token."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from sftlab.analysis.divergence import first_token_kl
from tests.support.refusals import refused

relaxed = settings(deadline=None, max_examples=40)
logits = hnp.arrays(np.float64, (3, 10), elements=st.floats(-50, 50))


def test_by_hand() -> None:
    # p = (3/4, 1/4), p' = (1/2, 1/2): 3/4 ln(3/2) + 1/4 ln(1/2).
    kl = first_token_kl([[math.log(3), 0.0]], [[7.0, 7.0]])
    assert kl == pytest.approx([0.75 * math.log(1.5) + 0.25 * math.log(0.5)])
    assert kl.dtype == np.float64


def test_direction_is_tuned_against_base() -> None:
    there, back = first_token_kl([[3.0, 0.0, 0.0], [1.0, 1.0, 1.0]], [[1.0, 1.0, 1.0], [3.0, 0.0, 0.0]])
    assert there != pytest.approx(back)
    p = np.exp([3.0, 0, 0]) / np.exp([3.0, 0, 0]).sum()
    assert there == pytest.approx(float((p * np.log(3 * p)).sum()))


@relaxed
@given(logits, logits)
def test_agrees_with_the_plain_formula(tuned: np.ndarray, base: np.ndarray) -> None:
    p, q = (np.exp(x) / np.exp(x).sum(axis=1, keepdims=True) for x in (tuned, base))
    assert first_token_kl(tuned, base) == pytest.approx(-(p * np.log(q / p)).sum(axis=1), rel=1e-6, abs=1e-9)


@relaxed
@given(logits, logits)
def test_never_negative(tuned: np.ndarray, base: np.ndarray) -> None:
    assert (first_token_kl(tuned, base) >= 0).all()


@relaxed
@given(logits, st.floats(-100, 100))
def test_zero_where_the_rows_differ_by_a_constant(tuned: np.ndarray, shift: float) -> None:
    assert first_token_kl(tuned, tuned) == pytest.approx(np.zeros(3), abs=0)
    assert first_token_kl(tuned, tuned + shift) == pytest.approx(np.zeros(3), abs=1e-12)


@relaxed
@given(logits, st.integers(0, 9), st.floats(0.01, 5))
def test_positive_where_a_likely_token_moved(base: np.ndarray, token: int, shift: float) -> None:
    base = base / 25  # every token keeps some probability
    tuned = base.copy()
    tuned[:, token] += shift
    assert (first_token_kl(tuned, base) > 0).all()


def test_huge_logits_do_not_overflow() -> None:
    assert first_token_kl([[1e4, 0.0]], [[0.0, 1e4]]) == pytest.approx([1e4])


def test_half_precision_is_computed_in_double() -> None:
    tuned, base = np.array([[8.0, 7.5]], np.float16), np.array([[7.5, 8.0]], np.float32)
    assert first_token_kl(tuned, base) == first_token_kl(tuned.astype(float), base.astype(float))


def test_no_facts_give_no_values() -> None:
    assert first_token_kl(np.empty((0, 10)), np.empty((0, 10))).shape == (0,)


def test_broken_model_is_named() -> None:
    with refused("base model's logits of fact row 1", advice="weights for NaN"):
        first_token_kl([[0.0, 1.0], [0.0, 1.0]], [[0.0, 1.0], [math.nan, 1.0]])
