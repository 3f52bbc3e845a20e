"""Geometry of points: against golden values of DADApy, scikit-learn, and pairs counted one by one."""

from __future__ import annotations

import json
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sftlab.analysis.geometry.density_peaks import density, density_peaks
from sftlab.analysis.geometry.dimension import dimension_by_scale, gride, two_nn
from sftlab.analysis.geometry.labels import (
    adjusted_rand_index,
    nearest_share,
    neighbour_consistency,
    silhouette,
    square_distances_by_label,
)
from sftlab.analysis.geometry.likelihoods import clipped, divergences, double_centred, likelihood_map
from sftlab.analysis.geometry.neighbours import Neighbours, distinct, nearest_neighbours

FOLDER = Path(__file__).parent
# DADApy 0.3.0: return_id_scaling_gride(range_max=100) on the point sets below, at n = 1, 2, 4, 8, 16, 32.
DIMENSIONS = json.loads((FOLDER / "gride.json").read_text())


def blobs(draw: np.random.Generator, shape: tuple[int, int], centres: int, spread: float) -> np.ndarray:
    middles = draw.normal(0, 1, (centres, shape[1])) * spread
    return middles[draw.integers(0, centres, shape[0])] + draw.normal(0, 1, shape)


@pytest.fixture(scope="module")
def neighbours() -> dict[str, Neighbours]:
    """The nearest neighbours of the points for which DADApy's results are known (it looked at 1,000)."""
    draw = np.random.default_rng(0)
    sets = {"blobs": blobs(draw, (1500, 10), 8, 2.0), "overlap": blobs(draw, (1500, 20), 10, 0.6)}
    places, ways = draw.uniform(0, 1, (2000, 3)), draw.normal(0, 1, (3, 64))
    sets["curved3"] = np.tanh(places @ ways) + draw.normal(0, 0.01, (2000, 64))
    other = np.random.default_rng(5)
    centres, of = other.normal(0, 1, (40, 5)) * 1.6, other.integers(0, 40, 4000)
    sets["many"] = centres[of] + other.normal(0, 0.6, (4000, 5))
    return {name: nearest_neighbours(points, 150) for name, points in sets.items()}


@pytest.mark.parametrize("name", ["blobs", "overlap", "curved3"])
def test_the_intrinsic_dimension_is_dadapy_s_at_every_scale(
    name: str, neighbours: dict[str, Neighbours]
) -> None:
    found = dimension_by_scale(neighbours[name])
    assert list(found) == [1, 2, 4, 8, 16, 32]
    assert list(found.values()) == pytest.approx(DIMENSIONS[name], rel=1e-6)


def test_two_nn_is_gride_of_the_two_nearest(neighbours: dict[str, Neighbours]) -> None:
    assert two_nn(neighbours["blobs"]) == gride(neighbours["blobs"], 1)
    # ratios 2, 4 and 1 (which takes no part): (2 - 1) / (ln 2 + ln 4)
    small = Neighbours(np.array([[1.0, 2.0], [1.0, 4.0], [3.0, 3.0]]), np.zeros((3, 2), dtype=np.int64))
    assert two_nn(small) == pytest.approx(1 / np.log(8.0))


def test_a_dimension_that_ratios_do_not_decide_is_nan() -> None:
    same = Neighbours(np.ones((5, 4)), np.zeros((5, 4), dtype=np.int64))
    assert np.isnan(gride(same, 1)) and np.isnan(gride(same, 2))


@pytest.mark.parametrize("name", ["blobs", "overlap", "curved3", "many"])
def test_clusters_are_dadapy_s(name: str, neighbours: dict[str, Neighbours]) -> None:
    with np.load(FOLDER / "density_peaks.npz") as golden:  # compute_clustering_ADP(Z=..., halo=False), k = 16
        expected = {key: golden[key] for key in golden if key.startswith(f"{name}_")}
    assert len(expected) == (1 if name == "many" else 4)
    dimension = gride(neighbours[name], 16)
    for key, labels in expected.items():
        found = density_peaks(neighbours[name], dimension, k=16, z=float(key.rpartition("_")[2]))
        assert found.max() == labels.max(), key
        assert adjusted_rand_index(found.tolist(), labels.tolist()) == 1.0, key


def test_density_by_hand() -> None:
    line = nearest_neighbours([[0.0], [1.0], [3.0], [6.0]], 2)
    at = density(line, 1.0, k=1)  # one point within a length of 2 r, of four points
    assert np.exp(at.log) == pytest.approx([1 / (2 * r * 4) for r in (1, 1, 2, 3)])
    assert at.error.tolist() == [1.0] * 4


@settings(max_examples=30, deadline=None)
@given(
    st.lists(st.tuples(st.integers(-9, 9), st.integers(-9, 9)), min_size=2, max_size=25), st.integers(1, 30)
)
def test_neighbours_are_the_first_of_a_sort_of_all_pairs(points: list[tuple[int, int]], k: int) -> None:
    found = nearest_neighbours(points, k)
    assert found.k == min(k, len(points) - 1) and found.points == len(points)
    for index, point in enumerate(points):
        others = sorted(
            np.hypot(point[0] - other[0], point[1] - other[1])
            for at, other in enumerate(points)
            if at != index
        )
        assert found.distances[index] == pytest.approx(others[: found.k], abs=1e-7)
        assert index not in found.indices[index] and len(set(found.indices[index])) == found.k


def test_near_points_far_from_the_origin_keep_their_distances() -> None:
    found = nearest_neighbours([[1e6, 0.0], [1e6 + 1e-3, 0.0], [-1e6, 5.0]], 1)
    assert found.distances[:2, 0] == pytest.approx([1e-3, 1e-3], rel=1e-5)
    assert found.indices[:2, 0].tolist() == [1, 0]


def test_repetitions_are_left_out_in_order() -> None:
    kept, index = distinct([[2, 0], [1, 1], [2, 0], [0, 5], [1, 1]])
    assert kept.tolist() == [[2, 0], [1, 1], [0, 5]] and index.tolist() == [0, 1, 3]


LABELS = st.lists(st.sampled_from("abcd"), min_size=2, max_size=40)


@settings(max_examples=30, deadline=None)
@given(LABELS, st.data())
def test_the_adjusted_rand_index_counts_pairs(one: list[str], data: st.DataObject) -> None:
    other = data.draw(st.lists(st.sampled_from("abc"), min_size=len(one), max_size=len(one)))
    pairs = list(combinations(range(len(one)), 2))
    together = [one[i] == one[j] for i, j in pairs]
    others = [other[i] == other[j] for i, j in pairs]
    both = sum(a and b for a, b in zip(together, others, strict=True))
    expected, most = sum(together) * sum(others) / len(pairs), (sum(together) + sum(others)) / 2
    index = 1.0 if together == others else (both - expected) / (most - expected)
    assert adjusted_rand_index(one, other) == pytest.approx(index)
    assert adjusted_rand_index(one, one) == 1.0


def test_labels_statistics_equal_scikit_learn_s() -> None:
    metrics = pytest.importorskip("sklearn.metrics")
    draw = np.random.default_rng(1)
    points, labels = draw.normal(size=(300, 6)), draw.integers(0, 4, 300).tolist()
    points += 2 * np.eye(6)[labels]
    labels[0] = 9  # the only point of its label
    other = draw.integers(0, 5, 300).tolist()
    assert silhouette(points, labels) == pytest.approx(metrics.silhouette_score(points, labels))
    assert adjusted_rand_index(labels, other) == pytest.approx(metrics.adjusted_rand_score(labels, other))
    assert np.isnan(silhouette(points, [0] * 300))


def test_neighbours_of_the_same_label_by_hand() -> None:
    found = nearest_neighbours([[0.0], [1.0], [3.0], [7.0], [8.0]], 2)
    labels = ["a", "a", "b", "b", "b"]
    # neighbours: 0: 1 2, 1: 0 2, 2: 1 0, 3: 4 2, 4: 3 2
    assert neighbour_consistency(found, labels, 2) == {"a": 0.5, "b": pytest.approx(2 / 3)}
    share = nearest_share(found, labels)
    assert (share.share, share.chance) == (0.8, (1 + 3) / 10)


def test_square_distances_within_and_between_labels_by_hand() -> None:
    found = square_distances_by_label([[0.0], [2.0], [5.0]], ["a", "a", "b"])
    assert (found.within, found.between) == pytest.approx((4.0, (25 + 9) / 2))
    assert np.isnan(square_distances_by_label([[0.0], [1.0]], ["a", "b"]).within)


def test_double_centring_by_hand_and_what_it_takes_out() -> None:
    found = double_centred([[1.0, 3.0], [2.0, 8.0]])
    assert found.tolist() == [[1.0, -1.0], [-1.0, 1.0]]
    draw = np.random.default_rng(2)
    values = draw.normal(size=(5, 7))
    moved = values + draw.normal(size=(5, 1)) + draw.normal(size=(1, 7))
    np.testing.assert_allclose(double_centred(moved), double_centred(values), atol=1e-12)
    assert np.abs(double_centred(values).sum(axis=0)).max() < 1e-12
    assert np.abs(double_centred(values).sum(axis=1)).max() < 1e-12


def test_the_lowest_likelihoods_are_raised_before_the_map_is_centred() -> None:
    values = np.arange(100.0).reshape(10, 10)
    assert clipped(values, 0.02).min() == pytest.approx(1.98) and clipped(values, 0.0).min() == 0.0
    assert np.array_equal(likelihood_map(values), double_centred(clipped(values, 0.02)))
    assert divergences([[0.0, 0.0], [2.0, 4.0]]).tolist() == [[0.0, 5.0], [5.0, 0.0]]
