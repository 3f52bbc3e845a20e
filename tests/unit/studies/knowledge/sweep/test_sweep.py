"""Sweeps: their files, the trials of their axes, their plans."""

from __future__ import annotations

import pickle
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sftlab.errors import UserError
from sftlab.execution.progress import SilentProgress
from sftlab.execution.runtime import Runtime
from sftlab.facts.training_sets import bucket_shares, draw_training_set, proportional
from sftlab.files import write_text
from sftlab.store.artifact import Store
from sftlab.studies.knowledge.sources import resolve
from sftlab.studies.knowledge.sweep.cost import check_limits, plan_sweep
from sftlab.studies.knowledge.sweep.sweep import Sweep, finished_sweep, finished_trials, is_finished
from sftlab.studies.knowledge.sweep.trial import KnowledgeTrials
from sftlab.studies.knowledge.sweep.trials import mixture
from sftlab.studies.load import load_sweep
from sftlab.sweeps.outcome import Outcome, mean_outcome
from sftlab.sweeps.records import done_marker, write_record
from tests.support.refusals import refused
from tests.support.small_sweeps import AXES, CONFIGS, sweep_of


@pytest.mark.parametrize("path", sorted((CONFIGS / "sweeps").glob("*.yaml")), ids=lambda p: p.stem)
def test_every_shipped_sweep_validates_and_plans(path: Path, tmp_path: Path) -> None:
    spec, study = load_sweep(path)
    store = Store(tmp_path)
    sweep = Sweep(spec, study, resolve(study, tmp_path), store, Runtime(), SilentProgress())
    check_limits(sweep)
    assert spec.name in plan_sweep(sweep)


def test_a_grid_has_a_trial_for_every_point_and_variants_share_fine_tuning(tmp_path: Path) -> None:
    sweep = sweep_of(tmp_path, axes=AXES)
    trials = list(sweep.listed())
    assert len(trials) == len({trial.name for trial in trials}) == 16
    assert {trial.variant for trial in trials} == {"restore", "wise-ft"}
    cells = [trial.plan(sweep.sources).cells[0] for trial in trials]
    assert len({cell.tuned.id for cell in cells}) == 8
    zeros = {cell.evaluations[0.0].id for cell in cells}
    tens = {cell.evaluations[10.0].id for cell in cells}
    assert len(zeros) == 8 and len(tens) == 16


def test_a_trial_of_the_study_s_own_setting_has_the_study_s_ids(tmp_path: Path) -> None:
    sweep = sweep_of(tmp_path, axes={"data": [0], "size": [2], "seed": [0]})
    (trial,) = sweep.listed()
    from sftlab.studies.knowledge.plan import Plan

    study = Plan(sweep.study, sweep.sources)
    (cell,) = trial.plan(sweep.sources).cells
    assert cell == next(c for c in study.cells if c.name == cell.name)


def test_varied_settings_are_told_in_the_variant_s_name_and_change_the_fine_tuning(tmp_path: Path) -> None:
    axes = {"data": [0], "size": [2], "seed": [0], "learning_rate": [1e-3, 1e-4], "epochs": [2]}
    trials = list(sweep_of(tmp_path, axes=axes).listed())
    assert [t.variant for t in trials] == ["restore learning_rate=0.001", "restore learning_rate=0.0001"]
    assert [(t.spec.sft.learning_rate, t.spec.sft.epochs) for t in trials] == [(1e-3, 2), (1e-4, 2)]


def test_a_strategy_with_data_of_its_own_is_run_once_and_not_once_a_bucket(tmp_path: Path) -> None:
    trials = list(sweep_of(tmp_path, axes={**AXES, "strategy": ["mixed"]}).listed())
    assert [(t.data, t.size, t.seed) for t in trials] == [
        ("mixed", size, seed) for seed in (0, 1) for size in (2, 4)
    ]


def test_random_trials_are_the_same_for_a_seed_and_a_longer_search_begins_with_them(tmp_path: Path) -> None:
    axes = {"data": "mixture", "size": [2, 4], "learning_rate": {"low": 1e-4, "high": 1e-2, "log": True}}

    def names(trials: int, seed: int = 0) -> list[str]:
        search = {"kind": "random", "trials": trials, "seed": seed}
        return [t.name for t in sweep_of(tmp_path, axes=axes, search=search).listed()]

    assert len(names(5)) == 5 * 5  # every point with all seeds
    assert names(5) == names(8)[: 5 * 5]
    assert names(5) != names(5, seed=1)


def test_a_point_of_a_search_is_tried_with_all_seeds_and_judged_by_their_mean(tmp_path: Path) -> None:
    axes = {"data": [0], "size": [2], "seed": [0, 1], "percent": {"low": 0, "high": 40}}
    sweep = sweep_of(tmp_path, axes=axes, search={"kind": "optuna", "trials": 1, "metric": "dev"})
    config = {"strategy": 0, "data": 0, "size": 2, "percent": 12.5}
    trials = sweep.maker.trials_of(config)
    assert [(t.seed, t.spec.restore.percents) for t in trials] == [(0, (0.0, 12.5)), (1, (0.0, 12.5))]
    lucky, unlucky = Outcome({0.0: 0.5, 12.5: 0.9}, 12.5, 0.9), Outcome({0.0: 0.6, 12.5: 0.1}, 0.0, 0.6)
    mean = mean_outcome([lucky, unlucky])
    assert (mean.percent, mean.score) == (0.0, pytest.approx(0.55))
    for trial in trials:
        write_record(sweep.records, trial, config, mean)
    assert finished_trials(sweep, []) == list(trials)


def test_halving_takes_the_seeds_of_a_point_together(tmp_path: Path) -> None:
    halved = sweep_of(tmp_path, axes=AXES, search={"metric": "dev"}, halving={"max_epochs": 4})
    entries = list(halved.search.entries())
    assert len(entries) == 8 and sum(map(len, entries)) == 16
    for entry in entries:
        assert [trial.seed for trial in entry] == [0, 1]
        assert len({(trial.variant, trial.data, trial.size) for trial in entry}) == 1
    assert [len(entry) for entry in sweep_of(tmp_path, axes=AXES).search.entries()] == [1] * 16


def test_regions_and_orders_are_axes_of_the_strategies_that_have_them(tmp_path: Path) -> None:
    strategies = [
        "restore",
        {"name": "restore", "region": "all"},
        "wise-ft",
        {"name": "l2-sp", "strength": 9},
    ]
    axes = {"data": [0], "size": [2], "seed": [0], "strategy": strategies}
    axes |= {"region": ["mlp", "attention"], "order": ["top", "random"]}
    found = [
        (t.variant, t.spec.restore.region, t.spec.restore.order)
        for t in sweep_of(tmp_path, axes=axes).listed()
    ]
    assert found[:4] == [
        (f"restore region={region} order={order}", region, order)
        for region in ("mlp", "attention")
        for order in ("top", "random")
    ]
    assert [name for name, _, _ in found[4:]] == [
        "restore region=all order=top",
        "restore region=all order=random",
        "wise-ft region=mlp",
        "wise-ft region=attention",
        "l2-sp strength=9",
    ]
    drawn = sweep_of(tmp_path, axes=axes, search={"kind": "optuna", "trials": 1, "metric": "dev"}).maker
    config = {"strategy": 0, "data": 0, "size": 2, "region": "mlp", "order": "random"}
    assert [t.variant for t in drawn.trials_of(config)] == ["restore region=mlp order=random"]


def test_halving_makes_a_rung_of_each_number_of_epochs(tmp_path: Path) -> None:
    sweep = sweep_of(tmp_path, axes=AXES, search={"metric": "dev"}, halving={"max_epochs": 9, "factor": 3})
    trial = next(sweep.listed())
    rungs = sweep.maker.rungs_of(trial)
    assert [rung.spec.sft.epochs for rung in rungs] == [1, 3, 9]
    assert [rung.variant for rung in rungs] == [f"restore epochs={n}" for n in (1, 3, 9)]


def test_a_maker_survives_the_way_to_another_process(tmp_path: Path) -> None:
    maker = sweep_of(tmp_path, axes=AXES).maker
    again: KnowledgeTrials = pickle.loads(pickle.dumps(maker))
    assert [t.name for t in again.grid()] == [t.name for t in maker.grid()]


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"axes": {"data": ["0:0.5+4:0.4"]}}, "add up to 0.9"),
        ({"axes": {"data": ["0:0.5+0:0.5"]}}, "different buckets"),
        ({"axes": {"strategy": ["restroe"]}}, "did you mean 'restore'"),
        ({"axes": {"strategy": [{"name": "restore", "regoin": "mlp"}]}}, "regoin"),
        ({"axes": {"percent": [120]}}, "axes.percent"),
        ({"axes": {"percent": {"low": 0, "high": 40}}}, "a grid cannot walk"),
        ({"axes": {"learning_rate": {"low": 0, "high": 1, "log": True}}}, "above 0"),
        ({"search": {"kind": "optuna"}}, "needs `trials`"),
        ({"search": {"kind": "optuna", "trials": 3}}, "needs a `metric` to look for, one of dev"),
        ({"search": {"kind": "optuna", "trials": 3, "metric": ""}}, "needs a metric"),
        ({"halving": {"max_epochs": 4}}, r"needs a `search\.metric`"),
        ({"axes": {"region": ["mpl"]}}, r"axes\.region"),
        ({"axes": {"order": ["top", "top"]}}, "top is listed twice"),
        ({"search": {"kind": "random", "trials": 3, "metric": "bleu"}}, "known ones are dev"),
        ({"search": {"kind": "optuna", "trials": 3, "metric": "kl"}}, "measured on test facts"),
        ({"axes": {"data": [0, "mixed"], "strategy": ["divided"]}}, r"divided: axes\.data has mixed"),
        ({"search": {"kind": "grid", "trials": 3}}, "leave `trials` out"),
        ({"axes": {"epochs": [1]}, "halving": {"max_epochs": 4}}, "walks the epochs itself"),
        ({"axis": {}}, "did you mean 'axes'"),
        ({"set": {"sft": {"precison": "fp32"}}}, "did you mean 'precision'"),
        ({"plugins": ["no_such_module_anywhere"]}, "no_such_module_anywhere"),
    ],
)
def test_bad_sweeps_are_told_by_field_and_way_out(
    tmp_path: Path, fields: dict[str, object], message: str
) -> None:
    with pytest.raises(UserError, match=message):
        list(sweep_of(tmp_path, **fields).listed())


def test_strategies_run_on_the_axis_s_data_and_drop_none(tmp_path: Path) -> None:
    study = {"training_sets": {"buckets": [0, "mixed"], "sizes": [2]}}
    axes = {"data": [0, 3], "size": [2], "seed": [0], "strategy": ["divided"]}
    assert [t.data for t in sweep_of(tmp_path, axes=axes, set=study).listed()] == [0, 3]
    study = {"training_sets": {"buckets": ["mixed"], "sizes": [2]}}
    trials = sweep_of(tmp_path, axes={**axes, "strategy": ["mixed"]}, set=study).listed()
    assert [t.data for t in trials] == ["mixed"]
    mixture_search = {"kind": "optuna", "trials": 2, "metric": "dev"}
    with pytest.raises(UserError, match=r"divided: axes\.data has"):
        check_limits(sweep_of(tmp_path, axes={**axes, "data": "mixture"}, search=mixture_search))


def test_a_draw_that_rounds_to_nothing_is_the_tuned_model_alone(tmp_path: Path) -> None:
    axes = {"data": [0], "size": [2], "seed": [0], "percent": {"low": 0, "high": 40}}
    maker = sweep_of(tmp_path, axes=axes, search={"kind": "random", "trials": 1}).maker
    config = {"strategy": 0, "data": 0, "size": 2, "percent": 0.04}
    assert [trial.spec.restore.percents for trial in maker.trials_of(config)] == [(0.0,)]


def test_limits_do_not_belong_to_a_sweep_s_identity_and_axes_do(tmp_path: Path) -> None:
    one = sweep_of(tmp_path, axes=AXES)
    assert one.id == sweep_of(tmp_path, axes=AXES, limits={"max_cells": 99}).id
    assert one.id != sweep_of(tmp_path, axes={**AXES, "size": [2]}).id
    longer = [
        sweep_of(tmp_path, axes=AXES, search={"kind": "optuna", "trials": n, "metric": "dev"}).id
        for n in (2, 3)
    ]
    assert longer[0] == longer[1] != one.id


def test_a_trial_is_finished_when_its_ladder_is_and_plans_count_it(tmp_path: Path) -> None:
    sweep = sweep_of(tmp_path, axes={**AXES, "percent": [0, 10]})
    trial = next(sweep.listed())
    (cell,) = trial.plan(sweep.sources).cells
    assert not is_finished(sweep, trial)
    for step in (
        cell.training_set,
        cell.tuned,
        cell.change,
        cell.controls,
        cell.updates,
        *cell.evaluations.values(),
    ):
        write_text(sweep.store.path(step) / "payload", step.id)
        sweep.store.commit(step)
    assert is_finished(sweep, trial)
    assert "16 trials, 1 finished" in plan_sweep(sweep)
    assert "tuned               1 HIT       7 BUILD" in plan_sweep(sweep)


@given(st.lists(st.floats(0, 1), min_size=5, max_size=5))
def test_a_mixture_s_shares_are_exact_and_near_the_weights(weights: list[float]) -> None:
    shares = bucket_shares(mixture(weights))
    assert sum(shares.values()) == 1
    total = sum(weights)
    if total > 1e-6:
        for bucket, weight in enumerate(weights):
            assert abs(float(shares.get(bucket, 0)) - weight / total) <= 1 / 20 + 1e-9


@given(st.integers(1, 500), st.lists(st.floats(0.01, 1), min_size=5, max_size=5))
def test_proportional_parts_add_up_and_miss_by_less_than_one(total: int, weights: list[float]) -> None:
    shares = bucket_shares(mixture(weights))
    parts = proportional(total, shares)
    assert sum(parts.values()) == total
    assert all(abs(parts[b] - total * share) < 1 for b, share in shares.items())


def test_a_mixture_draws_its_shares_of_each_bucket() -> None:
    topics = {f"f{i}": f"t{i % 2}" for i in range(80)}
    buckets = {f"f{i}": 1 if i < 40 else 4 for i in range(80)}
    chosen = draw_training_set(topics, buckets, "1:0.25+4:0.75", 16, 0)
    assert [buckets[fact] for fact in chosen].count(1) == 4 and len(set(chosen)) == 16


def test_two_builders_of_one_result_wait_for_each_other(tmp_path: Path) -> None:
    import threading

    store, order = Store(tmp_path), []

    def build(name: str) -> None:
        with store.lock("b", "a"):
            order.append(f"{name} in")
            time.sleep(0.05)
            order.append(f"{name} out")

    threads = [threading.Thread(target=build, args=(str(i),)) for i in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(order[i][0] == order[i + 1][0] for i in range(0, 6, 2))


def test_a_search_keeps_trials_that_differ_in_their_percentage_alone(tmp_path: Path) -> None:
    axes = {"data": [0], "size": [2], "seed": [0], "percent": {"low": 0, "high": 40}}
    sweep = sweep_of(tmp_path, axes=axes, search={"kind": "optuna", "trials": 3, "metric": "dev"})
    for percent in (5.0, 17.31):
        config = {"strategy": 0, "data": 0, "size": 2, "percent": percent}
        (trial,) = sweep.maker.trials_of(config)
        write_record(sweep.records, trial, config, Outcome({0.0: 0.1, percent: 0.2}, percent, 0.2))
        write_text(done_marker(sweep.records, trial, "one"), "")
    found = finished_trials(sweep, [])
    assert sorted(trial.spec.restore.percents for trial in found) == [(0.0, 5.0), (0.0, 17.3)]
    with pytest.raises(UserError, match="lacks 1 trials"):
        finished_sweep(sweep)
    write_text(done_marker(sweep.records, found[0], "another"), "")  # the sampler came upon a point again
    assert finished_sweep(sweep) == found and "3 are finished" in plan_sweep(sweep)


def test_a_search_with_halving_counts_trials_and_not_their_rungs(tmp_path: Path) -> None:
    axes = {"data": [0, 4], "size": [2], "seed": [0], "percent": [0, 10]}
    search = {"kind": "optuna", "trials": 2, "metric": "dev"}
    sweep = sweep_of(tmp_path, axes=axes, search=search, halving={"max_epochs": 4})
    config = {"strategy": 0, "data": 0, "size": 2}
    (trial,) = sweep.maker.trials_of(config)
    for rung in sweep.maker.rungs_of(trial):
        write_record(sweep.records, rung, config, Outcome({0.0: 0.1}, 0.0, 0.1))
    write_text(done_marker(sweep.records, trial, "one"), "")
    with pytest.raises(UserError, match="lacks 1 trials"):  # three records, one trial
        finished_sweep(sweep)


@pytest.mark.parametrize("text", ["no json\n{}\n", "{}\n", "[1]\n"])
def test_a_journal_of_a_search_that_cannot_be_read_is_told_by_its_path(tmp_path: Path, text: str) -> None:
    sweep = sweep_of(tmp_path, axes=AXES, search={"kind": "optuna", "trials": 1, "metric": "dev"})
    journal = sweep.folder / "optuna.journal"
    write_text(journal, text)
    with refused("not a readable journal", place="optuna.journal", advice="delete it"):
        sweep.search.points(()).draw(None)


def test_a_lock_that_another_holds_is_told_at_once(tmp_path: Path) -> None:
    store = Store(tmp_path)
    with store.lock("a"), store.try_lock("a") as mine, store.try_lock("b") as other:
        assert (mine, other) == (False, True)
    with store.try_lock("a") as mine:
        assert mine


def test_a_run_alone_waits_for_a_sweep_and_sweeps_do_not_wait_for_each_other(tmp_path: Path) -> None:
    store = Store(tmp_path)
    with store.shared(), store.shared():
        with pytest.raises(UserError, match="another run is building here"), store.exclusive():
            pass
