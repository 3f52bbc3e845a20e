"""How much of a gain is form: more answers in the asked form, or more right ones among those.

Score = share in the asked form x score of these, where an answer in another form counts as wrong.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]


def gain_parts(
    form: npt.ArrayLike, given: npt.ArrayLike, base_form: npt.ArrayLike, base_given: npt.ArrayLike
) -> tuple[Floats, Floats]:
    """The part of each gain that is form, and the part that is accuracy given form; their sum is the gain.

    The change of each factor is weighted by the mean of the other before and after, so that neither comes first.
    Where a model has no answer in the form, its accuracy given form is not known: it counts as unchanged there, and
    the whole gain as form.

    Args:
        form, base_form: shares in [0, 1] of answers in the form.
        given, base_given: scores of these alone; NaN where there are none. All arrays broadcast.
    """
    after, before = np.asarray(form, np.float64), np.asarray(base_form, np.float64)
    right, was_right = np.asarray(given, np.float64), np.asarray(base_given, np.float64)
    right, was_right = (
        np.where(np.isnan(right), was_right, right),
        np.where(np.isnan(was_right), right, was_right),
    )
    right, was_right = (
        np.nan_to_num(right),
        np.nan_to_num(was_right),
    )  # no answer in form at all: both parts are 0
    of_form: Floats = (after - before) * (right + was_right) / 2
    of_accuracy: Floats = (right - was_right) * (after + before) / 2
    return of_form, of_accuracy
