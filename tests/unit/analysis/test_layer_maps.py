"""Causal layer maps: which parts a swap has, effects by hand, and proposals on planted effects."""

from __future__ import annotations

import numpy as np
import pytest

from sftlab.analysis.layer_maps import (
    OUTSIDE,
    LayerSwap,
    benchmark_means,
    differences,
    freeze_proposal,
    halves,
    layer_swaps,
    restore_proposal,
)

# Benchmark 0 has two questions, benchmark 1 has four.
BENCHMARKS = np.array([0, 0, 1, 1, 1, 1])


def test_swaps_of_three_layers_are_all_different_models_and_neither_base_nor_tuned() -> None:
    swaps = layer_swaps(3)
    models = [(swap.tuned(3), swap.outside) for swap in swaps]
    assert len(set(models)) == len(models) == 10
    assert (frozenset(), False) not in models and (frozenset({0, 1, 2}), True) not in models
    found = {swap.name: model for swap, model in zip(swaps, models, strict=True)}
    assert found["only-1"] == (frozenset({1}), False)
    assert found["only-outside"] == (frozenset(), True)
    assert found["back-1"] == (frozenset({0, 2}), True)
    assert found["back-outside"] == (frozenset({0, 1, 2}), False)
    assert found["first-2"] == (frozenset({0, 1}), False)
    assert found["last-2"] == (frozenset({1, 2}), False)


def test_map_without_cumulative_swaps_has_two_swaps_of_each_part() -> None:
    assert len(layer_swaps(6, cumulative=False)) == 2 * 7


def test_effects_are_means_over_benchmarks_of_means_over_questions() -> None:
    values = np.array([[1.0, 0.0, 1.0, 0.0, 0.0, 0.0], [0.0] * 6])
    assert benchmark_means(values, BENCHMARKS).tolist() == [(1 / 2 + 1 / 4) / 2, 0.0]
    first, second = differences(values, BENCHMARKS, seed=0)
    assert first.value == 0.375 and first.low < 0.375 < first.high
    assert (second.value, second.low, second.high) == (0.0, 0.0, 0.0)
    assert differences(values, BENCHMARKS, seed=0)[0] == first


def test_interval_is_about_that_of_a_mean_of_independent_questions() -> None:
    draw = np.random.default_rng(0)
    values = draw.normal(size=(1, 400))
    (found,) = differences(values, np.zeros(400, dtype=np.int64), seed=1)
    half = 1.96 * values.std() / np.sqrt(400)
    assert found.high - found.value == pytest.approx(half, rel=0.1)
    assert found.value - found.low == pytest.approx(half, rel=0.1)


def test_every_second_question_of_each_benchmark_chooses() -> None:
    assert halves(BENCHMARKS).tolist() == [True, False, True, False, True, False]


def test_layers_beyond_the_fewest_with_nearly_the_whole_gain_are_proposed_for_freezing() -> None:
    swaps = layer_swaps(4)
    gains = {"only-0": 9.5, "only-2": 9.2, "first-2": 9.9, "only-outside": 10.0, "back-1": 10.0}
    values = np.array([gains.get(swap.name, 0.0) for swap in swaps])
    found = freeze_proposal(swaps, values, 10.0, 4)
    assert found is not None and found.swap == LayerSwap("only", 0)
    assert found.layers == frozenset({1, 2, 3})
    assert freeze_proposal(swaps, values, 20.0, 4) is None  # no swap brings nine tenths
    assert freeze_proposal(swaps, values, -1.0, 4) is None  # there is no gain


def test_layer_that_raises_the_score_most_when_it_is_put_back_is_proposed_for_restoration() -> None:
    swaps = layer_swaps(3)
    changes = {"back-1": 2.0, "back-2": 1.0, "back-outside": 5.0, "only-0": 7.0}
    values = np.array([changes.get(swap.name, -1.0) for swap in swaps])
    found = restore_proposal(swaps, values)
    assert found is not None and found.swap == LayerSwap("back", 1) and found.layers == frozenset({1})
    assert restore_proposal(swaps, np.full(len(swaps), -1.0)) is None
    assert restore_proposal(swaps, np.zeros(len(swaps))) is None


def test_outside_is_named_in_words() -> None:
    assert LayerSwap("back", OUTSIDE).name == "back-outside"
