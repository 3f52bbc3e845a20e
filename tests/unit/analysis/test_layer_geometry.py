"""The geometry of one layer: planted clusters, repeated states, and too few of them."""

from __future__ import annotations

import numpy as np
import pytest

from sftlab.analysis.geometry.dimension import SCALES
from sftlab.analysis.geometry.layer_geometry import layer_geometry


def planted(each: int = 60) -> tuple[np.ndarray, list[str]]:
    """Three far clusters of points of two dimensions, in a space of ten."""
    draw = np.random.default_rng(0)
    plane = np.concatenate([draw.normal(size=(each, 2)) + 30 * at for at in range(3)])
    return plane @ np.linalg.qr(draw.normal(size=(10, 2)))[0].T, [
        label for label in "abc" for _ in range(each)
    ]


def test_clusters_that_are_labels_are_found_with_their_dimension() -> None:
    points, labels = planted()
    found = layer_geometry(points, labels)
    assert (found.points, found.clusters, found.ari) == (180, 3, 1.0)
    assert found.consistency == {"a": 1.0, "b": 1.0, "c": 1.0}  # 18 neighbours of 59 in the cluster
    assert found.dimensions[SCALES.index(4)] == pytest.approx(2.0, abs=0.4)


def test_labels_without_relation_to_the_points_agree_by_chance() -> None:
    points, labels = planted()
    found = layer_geometry(points, list(np.random.default_rng(1).permutation(labels)))
    assert found.clusters == 3
    assert found.ari == pytest.approx(0.0, abs=0.05)
    assert list(found.consistency.values()) == pytest.approx([1 / 3] * 3, abs=0.06)


def test_equal_states_count_once_with_their_first_label() -> None:
    points, labels = planted()
    twice = layer_geometry(np.concatenate([points, points]), [*labels, *("c" * len(labels))])
    assert (twice.points, twice.clusters, twice.ari) == (180, 3, 1.0)


def test_too_few_states_have_no_clusters() -> None:
    points, labels = planted(each=5)
    few = layer_geometry(points, labels)  # 16 and 32 neighbours are more than there are
    assert few.clusters is None and few.ari is None
    assert np.isfinite(few.dimensions).tolist() == [True, True, True, False, False, False]
    same = layer_geometry(np.ones((9, 4)), [*"abc"] * 3)
    assert (same.points, same.clusters, dict(same.consistency)) == (1, None, {})
