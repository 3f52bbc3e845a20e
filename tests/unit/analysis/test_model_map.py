"""Numbers behind a map of models: against scikit-learn, counts by hand, and planted groups."""

from __future__ import annotations

import numpy as np
import pytest

from sftlab.analysis.geometry.labels import label_codes, silhouette
from sftlab.analysis.geometry.model_map import SMALLEST, coordinates, grouping, shuffled


def planted(seed: int = 0) -> tuple[np.ndarray, list[str], list[str]]:
    """Six bases of three families, four models each: families are far apart, training sets make no difference."""
    draw = np.random.default_rng(seed)
    bases = [f"b{n}" for n in range(6) for _ in range(4)]
    centres = np.repeat(draw.normal(size=(3, 20)) * 5, 2, axis=0) + draw.normal(size=(6, 20))
    return np.repeat(centres, 4, axis=0) + 0.3 * draw.normal(size=(24, 20)), bases, [*"wxyz"] * 6


def test_labels_that_decide_where_points_are_stand_out_and_others_do_not() -> None:
    points, bases, sets = planted()
    by_base = grouping(points, bases, ["all"] * 24, seed=1, shuffles=199)
    by_set = grouping(points, sets, bases, seed=1, shuffles=199)
    assert by_base is not None and by_set is not None
    assert (by_base.groups, by_base.nearest, by_base.nearest_p, by_base.silhouette_p) == (
        6,
        1.0,
        1 / 200,
        1 / 200,
    )
    assert by_base.silhouette == pytest.approx(silhouette(points, bases))
    assert by_base.nearest_chance == pytest.approx(3 / 23, abs=0.03)
    assert (
        by_set.nearest == 0.0 and by_set.nearest_p == 1.0
    )  # the nearest is always another set of the same base
    assert by_set.squares.within > by_set.squares.between * 0.9


def test_families_are_shuffled_over_whole_bases() -> None:
    points, bases, _ = planted()
    families = [f"f{int(base[1]) // 2}" for base in bases]
    found = grouping(points, families, bases, seed=1, shuffles=199)
    assert found is not None and found.nearest == 1.0
    # Of 15 pairings of six bases one is the true one; the nearest model is of the same base in all of them.
    assert found.nearest_p == 1.0
    assert found.silhouette_p == pytest.approx(1 / 15, abs=0.05)


def test_shuffling_keeps_blocks_whole_or_labels_within_blocks() -> None:
    blocks = label_codes([*"aaabbcc"])
    rng = np.random.default_rng(0)
    for _ in range(20):
        exchanged = shuffled(label_codes([*"1112233"]), blocks, rng)
        assert sorted(set(exchanged.tolist())) == [0, 1, 2]
        assert all(len(set(exchanged[blocks == block].tolist())) == 1 for block in range(3))
        moved = shuffled(label_codes([*"xyzxyxz"]), blocks, rng)
        assert [sorted(moved[blocks == block].tolist()) for block in range(3)] == [[0, 1, 2], [0, 1], [0, 2]]


def test_label_that_no_shuffle_changes_has_no_numbers() -> None:
    points, bases, _ = planted()
    assert grouping(points, ["one"] * 24, bases, seed=0) is None
    assert grouping(points, bases, bases, seed=0) is None  # each family has one base


def test_picture_keeps_far_groups_apart_and_repeats_exactly() -> None:
    points, bases, _ = planted()
    first = coordinates(points)
    assert first is not None and first.shape == (24, 2)
    assert np.array_equal(first, coordinates(points))
    families = [int(base[1]) // 2 for base in bases]
    assert silhouette(first, families) > 0.2
    assert coordinates(points[: SMALLEST - 1]) is None
