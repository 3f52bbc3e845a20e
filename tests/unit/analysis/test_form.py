"""Form and accuracy as parts of a gain."""

from __future__ import annotations

from math import nan

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sftlab.analysis.form import gain_parts

share = st.floats(0, 1)


@given(share, share, share, share)
def test_parts_add_up_to_the_gain(form: float, right: float, base_form: float, base_right: float) -> None:
    of_form, of_accuracy = gain_parts(form, right, base_form, base_right)
    assert float(of_form + of_accuracy) == pytest.approx(form * right - base_form * base_right, abs=1e-12)


def test_parts_by_hand() -> None:
    # Form 0.2 to 0.8, accuracy 0.5 to 0.7: 0.6 x 0.6 and 0.2 x 0.5.
    of_form, of_accuracy = gain_parts(0.8, 0.7, 0.2, 0.5)
    assert (float(of_form), float(of_accuracy)) == (pytest.approx(0.36), pytest.approx(0.1))


def test_base_without_answers_in_form_gains_by_form_alone() -> None:
    of_form, of_accuracy = gain_parts([1.0, 0.0, 0.0], [0.5, nan, nan], [0.0, 0.5, 0.0], [nan, 0.4, nan])
    assert of_form == pytest.approx([0.5, -0.2, 0.0])
    assert np.array_equal(of_accuracy, np.zeros(3))
