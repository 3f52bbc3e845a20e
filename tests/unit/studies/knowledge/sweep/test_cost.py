"""What sweeps cost: limits that refuse them before anything runs, and plans."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from sftlab.errors import UserError
from sftlab.files import write_text
from sftlab.studies.knowledge.sweep.cost import check_limits, plan_sweep, shared_steps
from sftlab.studies.knowledge.sweep.sweep import Sweep
from sftlab.sweeps.records import done_marker
from tests.support.refusals import refused
from tests.support.small_sweeps import AXES, sweep_of


def test_a_sweep_over_its_limits_is_refused_with_both_numbers(tmp_path: Path) -> None:
    check_limits(sweep_of(tmp_path, axes=AXES, limits={"max_cells": 16, "max_models": 48}))
    with refused("nothing has run.*max_cells is 15, and the sweep plans 16", value="s"):
        check_limits(sweep_of(tmp_path, axes=AXES, limits={"max_cells": 15}))
    with pytest.raises(UserError, match="max_trained_tokens"):
        search = {"kind": "optuna", "trials": 1000, "metric": "dev"}
        check_limits(sweep_of(tmp_path, axes=AXES, search=search, limits={"max_trained_tokens": 1000}))


def trained_tokens(sweep: Sweep) -> int:
    """What a refusal names as planned."""
    with pytest.raises(UserError) as refused:
        check_limits(sweep)
    found = re.search(r"max_trained_tokens is 1, and the sweep plans ([\d,]+)", str(refused.value))
    assert found is not None
    return int(found.group(1).replace(",", ""))


def pretrained_tokens(sweep: Sweep) -> int:
    """What all trials rest on: the pocket model."""
    return sum(cost.trained_tokens for _, cost in shared_steps(sweep.base.plan))


def test_limits_count_all_rungs_of_a_halving_and_so_does_the_plan(tmp_path: Path) -> None:
    axes = {"data": [0], "size": [4], "seed": [0, 1], "percent": [0, 10]}
    halved = {"halving": {"max_epochs": 4}, "search": {"metric": "dev"}}
    check_limits(sweep_of(tmp_path, axes=axes, **halved, limits={"max_cells": 6, "max_models": 12}))
    with refused("max_cells is 5, and the sweep plans 6", value="s"):
        check_limits(sweep_of(tmp_path, axes=axes, **halved, limits={"max_cells": 5}))
    one = {**axes, "seed": [0], "epochs": [1]}
    limits = {"max_trained_tokens": 1}
    shared = pretrained_tokens(sweep_of(tmp_path, axes=one))
    single = trained_tokens(sweep_of(tmp_path, axes=one, limits=limits)) - shared
    assert shared > 0 and single == 4 * 32
    assert trained_tokens(sweep_of(tmp_path, axes=axes, **halved, limits=limits)) == shared + 2 * 7 * single
    sweep = sweep_of(tmp_path, axes=axes, **halved)
    assert "2 trials, 0 finished" in plan_sweep(sweep)
    assert re.search(r"tuned +0 HIT +6 BUILD", plan_sweep(sweep))
    first = next(sweep.listed())
    write_text(done_marker(sweep.records, first), "")  # stopped before its first rung: nothing is left of it
    assert "2 trials, 1 finished" in plan_sweep(sweep)
    assert re.search(r"tuned +0 HIT +3 BUILD", plan_sweep(sweep))


def test_limits_count_the_probe_of_a_mask_and_the_most_expensive_strategy_of_a_search(tmp_path: Path) -> None:
    masked = {"name": "masked-update", "percent": 20, "size": 2}
    axes = {"data": [0], "size": [4], "seed": [0]}
    limits = {"max_trained_tokens": 1}
    shared = pretrained_tokens(sweep_of(tmp_path, axes=axes))
    plain = trained_tokens(sweep_of(tmp_path, axes=axes, limits=limits)) - shared
    probed = trained_tokens(sweep_of(tmp_path, axes={**axes, "strategy": [masked]}, limits=limits)) - shared
    assert probed == plain * 6 // 4
    both = {**axes, "strategy": ["wise-ft", masked]}
    search = {"kind": "optuna", "trials": 3, "metric": "dev"}
    assert trained_tokens(sweep_of(tmp_path, axes=both, search=search, limits=limits)) == shared + 3 * probed
    models = {"max_models": 6}  # wise-ft has the longer ladder
    with pytest.raises(UserError, match="plans 9"):
        check_limits(sweep_of(tmp_path, axes=both, search=search, limits=models))


def test_the_limit_of_the_cost_counts_generated_and_trained_tokens_of_each_step_once(tmp_path: Path) -> None:
    sweep = sweep_of(tmp_path, axes={**AXES, "percent": [0, 10]})
    facts = sweep.sources.fact_counts
    asked = sum(count for split, count in facts.items() if split != "train")
    # wise-ft and restore share the 8 fine-tuned models and their answers at 0 %.
    trained = 4 * (2 + 4) * 32
    answered = 16 * (4 * (3 * asked + 3 * 2) + 4 * (3 * asked + 3 * 4))
    shared = [cost for _, cost in shared_steps(sweep.base.plan)]
    cost = trained + answered + sum(c.generated_tokens + c.trained_tokens for c in shared)
    limited = {"axes": {**AXES, "percent": [0, 10]}}
    check_limits(sweep_of(tmp_path, **limited, limits={"max_cost": cost}))
    with pytest.raises(
        UserError, match=f"max_cost is {cost - 1:,}, and the sweep plans {cost:,}.*In all it takes"
    ):
        check_limits(sweep_of(tmp_path, **limited, limits={"max_cost": cost - 1}))


def test_the_plan_of_a_search_tells_the_most_that_it_can_cost(tmp_path: Path) -> None:
    axes = {"data": [0, 4], "size": [2, 4], "seed": [0, 1], "percent": {"low": 0, "high": 40}}
    text = plan_sweep(sweep_of(tmp_path, axes=axes, search={"kind": "optuna", "trials": 3, "metric": "dev"}))
    assert "Optuna chooses 3 points, 0 are finished" in text
    assert re.search(r"to build: at most 2 engine starts, [\d,]+ completions .* trained tokens", text)
