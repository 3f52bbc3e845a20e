import numpy as np
import pytest
from scipy import stats
from scipy.stats import pearsonr

from sftlab.analysis.agreement import (
    benchmark_correlations,
    correlations,
    label_contrast,
    label_contrast_null,
    leaf_order,
    lower_triangle,
    mean_over_pairs,
    model_correlations,
    paired_t,
    set_correlations,
    structure_agreement,
    structure_differences,
    weighted_label_contrast,
)
from sftlab.analysis.components import (
    components_needed,
    explained,
    explained_by_columns,
    explained_null,
    sets_shuffled,
)
from sftlab.analysis.variance import PARTS, synergy, variance_parts

MATRIX = np.array([[1, 0.9, 0.2, 0.1], [0.9, 1, 0.3, 0.4], [0.2, 0.3, 1, 0.8], [0.1, 0.4, 0.8, 1]])
LABELS = ["a", "a", "b", "b"]


def cells(seed: int = 0, shape: tuple[int, ...] = (4, 5, 6)) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape)


def test_correlations_equal_pearsons() -> None:
    rows = cells(shape=(3, 8))
    assert correlations(rows)[0, 2] == pytest.approx(pearsonr(rows[0], rows[2]).statistic)
    np.testing.assert_allclose(correlations(rows), np.corrcoef(rows))


def test_rows_without_values_have_no_correlation() -> None:
    assert correlations(np.empty((2, 3, 0))).shape == (2, 3, 3)
    assert np.isnan(structure_agreement(np.zeros((4, 1, 1)))).all()  # one benchmark has no pairs


def test_a_constant_has_no_correlation() -> None:
    found = correlations(np.array([[0.1, 0.1, 0.1], [1.0, 2.0, 3.0]]))
    assert np.isnan(found[0, 1])
    assert found[1, 1] == pytest.approx(1)


def test_each_kind_of_correlation_is_over_the_right_axes() -> None:
    gains = cells()
    assert model_correlations(gains)[1, 2] == pytest.approx(
        pearsonr(gains[1].ravel(), gains[2].ravel()).statistic
    )
    assert benchmark_correlations(gains)[3, 0, 4] == pytest.approx(
        pearsonr(gains[3, :, 0], gains[3, :, 4]).statistic
    )
    assert set_correlations(gains)[2, 1, 3] == pytest.approx(pearsonr(gains[2, 1], gains[2, 3]).statistic)


def test_structures_are_compared_by_their_lower_triangles() -> None:
    np.testing.assert_array_equal(lower_triangle([[1, 9, 9], [2, 1, 9], [3, 4, 1]]), [2, 3, 4])
    matrices = set_correlations(cells())
    found = structure_agreement(matrices)
    one, two = (matrices[m][np.tril_indices(5, -1)] for m in (0, 3))
    assert found.shape == (4, 4)
    assert found[0, 3] == pytest.approx(pearsonr(one, two).statistic)


def test_the_paired_test_is_over_pairs_of_models() -> None:
    first, second = model_correlations(cells(1)), model_correlations(cells(2))
    found = paired_t(first, second)
    expected = stats.ttest_rel(lower_triangle(first), lower_triangle(second))
    assert (found.t, found.p, found.pairs) == (
        pytest.approx(expected.statistic),
        pytest.approx(expected.pvalue),
        6,
    )


def test_structure_differences_average_to_the_difference_of_means() -> None:
    gains = cells()
    matrix = structure_differences(gains)
    expected = lower_triangle(structure_agreement(benchmark_correlations(gains))).mean()
    expected -= lower_triangle(structure_agreement(set_correlations(gains))).mean()
    assert mean_over_pairs(matrix, np.ones(4)) == pytest.approx(expected)


def test_a_pair_of_a_model_with_itself_never_counts() -> None:
    # Models 0 and 1 are drawn, 0 twice: only the pair (0, 1) is left.
    assert mean_over_pairs(MATRIX, [2, 1, 0, 0]) == pytest.approx(0.9)
    assert np.isnan(mean_over_pairs(MATRIX, [4, 0, 0, 0]))


def test_label_contrast_is_within_less_across() -> None:
    # Within: 0.9 and 0.8; across: 0.2, 0.3, 0.1, 0.4.
    assert label_contrast(MATRIX, LABELS) == pytest.approx(0.85 - 0.25)
    assert np.isnan(label_contrast(MATRIX, ["a"] * 4))
    assert np.isnan(label_contrast(MATRIX, list("abcd")))


def test_pairs_of_one_block_are_left_out() -> None:
    # Same language and other family: (0, 2), (1, 3); other language and other family: (0, 3), (1, 2).
    found = label_contrast(MATRIX, ["en", "zh", "en", "zh"], block=LABELS)
    assert found == pytest.approx((0.2 + 0.4) / 2 - (0.1 + 0.3) / 2)


def test_weights_of_one_give_the_plain_contrast() -> None:
    assert weighted_label_contrast(MATRIX, LABELS, np.ones(4)) == pytest.approx(
        label_contrast(MATRIX, LABELS)
    )
    # Model 1 twice: within 0.9 (weight 2) and 0.8 (1); across 0.2, 0.1 (1 each), 0.3, 0.4 (2 each).
    expected = (2 * 0.9 + 0.8) / 3 - (0.2 + 0.1 + 2 * 0.3 + 2 * 0.4) / 6
    assert weighted_label_contrast(MATRIX, LABELS, [1, 2, 1, 1]) == pytest.approx(expected)
    assert np.isnan(weighted_label_contrast(MATRIX, LABELS, [1, 0, 1, 0]))


def test_the_permutation_null_holds_all_ways_to_label() -> None:
    null, p = label_contrast_null(MATRIX, LABELS, seed=0)
    # Three ways to make two pairs of four models; the observed one is a third of them.
    assert len(set(null.round(9))) == 3
    assert p == pytest.approx(1 / 3, abs=0.03)


def test_families_without_a_family_effect_are_rarely_found() -> None:
    families = ["a", "a", "a", "b", "b", "c", "d", "e", "f", "g"]
    random = np.random.default_rng(5)
    found = [
        label_contrast_null(model_correlations(random.normal(size=(10, 4, 5))), families, seed)[1] < 0.05
        for seed in range(60)
    ]
    # 5 % of 60 is 3; three standard deviations are 5.
    assert sum(found) <= 8


def test_a_planted_family_is_found() -> None:
    gains = cells(shape=(9, 6, 6))
    gains[1] = gains[0] + 0.2 * gains[1]
    gains[2] = gains[0] + 0.2 * gains[2]
    _, p = label_contrast_null(model_correlations(gains), ["a"] * 3 + list("bcdefg"), seed=0)
    assert p < 0.03


def test_leaves_of_one_family_are_neighbours() -> None:
    shuffled = MATRIX[np.ix_([0, 2, 1, 3], [0, 2, 1, 3])]
    order, tree = leaf_order(shuffled)
    assert tree.shape == (3, 4)
    assert {frozenset(order[:2]), frozenset(order[2:])} == {frozenset({0, 2}), frozenset({1, 3})}


def test_explained_variance_equals_that_of_singular_values() -> None:
    gains = cells()
    table = gains.reshape(4, -1).T
    powers = np.linalg.svd(table - table.mean(axis=0), compute_uv=False) ** 2
    np.testing.assert_allclose(explained(gains), np.cumsum(powers) / powers.sum())
    wide = cells(shape=(3, 7))
    powers = np.linalg.svd(wide - wide.mean(axis=0), compute_uv=False) ** 2
    np.testing.assert_allclose(explained_by_columns(wide)[:3], np.cumsum(powers) / powers.sum())
    np.testing.assert_allclose(explained_by_columns(wide)[2:], 1)


def test_one_shared_pattern_is_one_component() -> None:
    pattern = cells(shape=(5, 6))
    gains = np.stack([k * pattern for k in (1.0, 2.0, -3.0)])
    assert explained(gains)[0] == pytest.approx(1)
    assert explained_null(gains, seed=0, draws=50)[:, 0].max() < 0.95


def test_shuffling_keeps_the_scores_of_each_model_and_benchmark() -> None:
    gains = cells()
    shuffled = sets_shuffled(gains, np.random.default_rng(0))
    np.testing.assert_array_equal(np.sort(shuffled, axis=1), np.sort(gains, axis=1))
    assert not np.array_equal(shuffled, gains)


def test_components_needed_are_counted_up_to_a_share() -> None:
    assert components_needed([0.5, 0.9, 0.95, 1.0]) == 3
    assert components_needed([0.2, 0.4]) == 2


def test_variance_parts_are_those_of_a_hand_made_grid() -> None:
    model, data, benchmark = np.array([1.0, -1.0]), np.array([2.0, 0.0, -2.0]), np.array([3.0, -3.0])
    gains = 5 + model[:, None, None] + data[None, :, None] + benchmark[None, None, :]
    gains = gains + (data[:, None] * benchmark[None, :])[None] / 2
    # Mean squares: models 1, sets 8/3, benchmarks 9, sets x benchmarks 8/3 * 9 / 4 = 6.
    total = 1 + 8 / 3 + 9 + 6
    found = variance_parts(gains)
    assert found == pytest.approx(
        {
            "model": 1 / total,
            "data": 8 / 3 / total,
            "benchmark": 9 / total,
            "data x benchmark": 6 / total,
            "model x data": 0,
            "model x benchmark": 0,
            "model x data x benchmark": 0,
        }
    )
    assert sum(found.values()) == pytest.approx(1)
    assert synergy(gains) == pytest.approx(1)


def test_synergy_is_the_common_part_of_the_interaction_and_ignores_baselines() -> None:
    gains = cells(3)
    parts = variance_parts(gains)
    common, rest = parts["data x benchmark"], parts["model x data x benchmark"]
    assert synergy(gains) == pytest.approx(common / (common + rest))
    assert synergy(gains + cells(4, (4, 1, 6))) == pytest.approx(synergy(gains))
    assert tuple(parts) == PARTS
