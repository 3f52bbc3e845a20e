"""Rows on gradients from sums over two modules, by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest

from sftlab.measurements.fact_gradients import KNOWN, SHUFFLED, TRAINING, UPDATE, Part, Products
from sftlab.studies.knowledge.results.gradient_rows import (
    GradientRow,
    PredictedRow,
    RestoredGradientRow,
    forgetting_rows,
    gradient_rows,
    predicted_rows,
    restored_rows,
)

# Two modules of one weight each. The gradients of the facts are (3, 4), (1, 0) and (0, 1); the last two are known, so
# that their mean is (1/2, 1/2).
FOUND = Products(
    parts=[Part("0", "attn.q", 1), Part("1", "attn.q", 3)],
    losses=np.array([1.0, 2.0, 3.0]),
    squared=np.array([[9.0, 16.0], [1.0, 0.0], [0.0, 1.0]]),
    along={
        KNOWN: np.array([[1.5, 2.0], [0.5, 0.0], [0.0, 0.5]]),
        UPDATE: np.array([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]]),
        SHUFFLED: np.array([[0.0, -1.0], [0.0, -2.0], [0.0, -3.0]]),
        TRAINING: np.array([[-1.0, 0.0], [-2.0, 0.0], [-4.0, 0.0]]),
    },
    sizes={KNOWN: np.array([0.25, 0.25])},
    within=np.array([[9.0, 4.0], [0.0, 0.0], [0.0, 0.5]]),
    chosen=np.array([1, 1]),
)


def test_norms_and_cosines_by_bucket_and_part() -> None:
    rows = gradient_rows(FOUND, buckets=[0, 4, 4], known=[1, 2])
    assert [(row.kind, row.name) for row in rows if row.bucket == 0] == [
        ("all", "all"),
        ("layer", "0"),
        ("layer", "1"),
        ("module", "attn.q"),
    ]
    cosine = 7 / (5 * math.sqrt(2))
    assert rows[0] == GradientRow(0, "all", "all", 1, 5.0, None, pytest.approx(cosine), None)
    # The mean without a known fact is the other one, which has nothing in common with it.
    assert rows[1] == GradientRow(4, "all", "all", 2, 1.0, 0.0, 0.0, 0.0)
    layer = {row.bucket: row for row in rows if (row.kind, row.name) == ("layer", "0")}
    assert layer[0].norm == 3.0 and layer[0].cosine == pytest.approx(1.0)
    assert layer[4] == GradientRow(
        4, "layer", "0", 2, 0.5, 0.5, None, None
    )  # nothing is left to compare with


def test_shares_on_restored_weights_by_bucket_and_part() -> None:
    rows = restored_rows("c", 20.0, FOUND, {0: 0, 2: 4})
    assert rows[0] == RestoredGradientRow("c", 20.0, 0, "all", "all", 1, 13 / 25, None, 2 / 4)
    assert rows[1] == RestoredGradientRow("c", 20.0, 4, "all", "all", 1, 0.5, None, 0.5)
    found = {(row.name, row.bucket): row for row in rows if row.kind == "layer"}
    assert (found["1", 0].share, found["1", 0].weights) == (0.25, 1 / 3)
    assert found["0", 4].share is None  # no gradient there


def test_predictions_and_how_well_they_separate_lost_facts() -> None:
    facts = {0: ("test", "a"), 1: ("test", "b"), 2: ("test_ood", "c")}
    rows = predicted_rows(FOUND, facts)
    assert rows[0] == PredictedRow("test", "a", 1.0, 5.0, update=3.0, shuffled=-1.0, training=-1.0)
    assert rows[1] == PredictedRow("test", "b", 2.0, 1.0, update=7.0, shuffled=-2.0, training=-2.0)
    right = {"test": {"a": True, "b": False}, "test_ood": {"c": False}}
    found = {(row.split, row.predictor): row for row in forgetting_rows("c", rows, right)}
    assert {name: found["test", name].auc for name in ("update", "training", "shuffled", "loss", "norm")} == {
        "update": 1.0,
        "training": 0.0,
        "shuffled": 0.0,
        "loss": 1.0,
        "norm": 0.0,
    }
    one = found["test", "update"]
    assert (one.facts, one.forgotten, one.low, one.high) == (2, 1, None, None)
    all_lost = found["test_ood", "update"]
    assert (all_lost.facts, all_lost.forgotten, all_lost.auc) == (1, 1, None)
