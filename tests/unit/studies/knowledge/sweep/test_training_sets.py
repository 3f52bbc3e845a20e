"""What the trials of a sweep are trained on: each set as its strategy draws it, and the size `all`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import yaml

from sftlab.errors import UserError
from sftlab.execution.progress import SilentProgress
from sftlab.execution.runtime import Runtime
from sftlab.facts.table import read_facts
from sftlab.files import write_text
from sftlab.store.artifact import Store
from sftlab.studies.knowledge.sources import resolve
from sftlab.studies.knowledge.stages.training_sets import drawn_size
from sftlab.studies.knowledge.sweep.cost import plan_sweep
from sftlab.studies.knowledge.sweep.run import draw_training_sets
from sftlab.studies.knowledge.sweep.steps import release_models
from sftlab.studies.knowledge.sweep.sweep import Sweep
from sftlab.studies.knowledge.sweep.trial import steps_of
from sftlab.studies.knowledge.sweep.trials import check_sweep, largest
from sftlab.studies.load import load_sweep
from tests.unit.studies.knowledge.test_explain import scored
from tests.unit.studies.knowledge.test_plan_refuses import own_study

COUNTS = {("A", "train"): 8, ("A", "test"): 2, ("A", "dev"): 1}  # all train facts are of bucket 4


def sweep_of(folder: Path, size: Sequence[int | str], *strategies: object) -> Sweep:
    axes = {"data": [4], "size": list(size), "seed": [0], "strategy": list(strategies)}
    return swept(folder, COUNTS, axes)


def swept(folder: Path, counts: dict[tuple[str, str], int], axes: dict[str, object]) -> Sweep:
    """A sweep over facts of these topics and splits, whose training facts are all of bucket 4; C is in domain too."""
    study = own_study(folder, counts)
    topics = folder / "topics.yaml"
    line = (
        '- {topic: C, domain: in-domain, question: "Which C is {subject}?", templates: ["{subject} was"]}\n'
    )
    topics.write_text(topics.read_text() + (line if any(topic == "C" for topic, _ in counts) else ""))
    (folder / "sweep.yaml").write_text(yaml.safe_dump({"name": "s", "study": str(study), "axes": axes}))
    spec, loaded = load_sweep(folder / "sweep.yaml")
    store = Store(folder / "store")
    sweep = Sweep(spec, loaded, resolve(loaded, store.root), store, Runtime(), SilentProgress())
    if sweep.base.missing(sweep.base.plan.mastery):
        scored(sweep.base)
    return sweep


def topic_of(sweep: Sweep, fact: str) -> str:
    table = read_facts(sweep.store.path(sweep.base.plan.facts), "train").to_pylist()
    return next(str(row["topic"]) for row in table if row["fact_id"] == fact)


def drawn(sweep: Sweep) -> dict[str, list[str]]:
    """The facts of each trial, by its name."""
    trials = list(sweep.listed())
    draw_training_sets(sweep, trials)
    files = {t.name: sweep.store.path(sweep.cell(t).training_set) / "train.parquet" for t in trials}
    return {name: pq.read_table(file)["fact_id"].to_pylist() for name, file in files.items()}


def test_each_strategy_of_a_sweep_draws_by_its_rule(tmp_path: Path) -> None:
    found = drawn(sweep_of(tmp_path, [3], "restore", {"name": "replay", "share": 0.5}))
    plain, replayed = found["bucket4-n3-s0 restore"], found["bucket4-n3-s0 replay share=0.5"]
    assert len(plain) == 3 and len(replayed) == 5 and set(plain) < set(replayed)


def test_a_sweep_trains_on_all_facts_of_a_bucket(tmp_path: Path) -> None:
    sweep = sweep_of(tmp_path, [3, "all"], "restore")
    found = drawn(sweep)
    assert {name: len(facts) for name, facts in found.items()} == {
        "bucket4-n3-s0 restore": 3,
        "bucket4-nall-s0 restore": 8,
    }
    assert [drawn_size(sweep.build(trial), sweep.cell(trial)) for trial in sweep.listed()] == [3, 8]
    assert "sweep s: 2 trials, 0 finished" in plan_sweep(sweep)


def test_a_size_of_a_sweep_that_is_everything_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="holds 8 facts, so the sizes 8 and all are the same training set"):
        drawn(sweep_of(tmp_path, [8, "all"], "restore"))


def test_the_largest_size_is_not_known_where_all_is_one() -> None:
    assert largest([60, 1920]) == [1920] and largest(["all", 60, 240]) == [240, "all"]
    assert largest(["all"]) == ["all"]


def test_a_topic_is_left_out_of_the_training_sets_of_its_variant_alone(tmp_path: Path) -> None:
    axes = {"data": [4], "size": [2], "seed": [0], "leave_out": ["none", "A"]}
    counts = {(topic, split): n for topic in "AC" for split, n in (("train", 4), ("test", 2), ("dev", 1))}
    sweep = swept(tmp_path, counts, axes)
    found = drawn(sweep)
    topics = {name: {topic_of(sweep, fact) for fact in facts} for name, facts in found.items()}
    assert topics == {
        "bucket4-n2-s0 restore leave_out=none": {"A", "C"},
        "bucket4-n2-s0 restore leave_out=A": {"C"},
    }
    plain = swept(tmp_path, counts, {**axes, "leave_out": ["none"]})
    without = swept(tmp_path, counts, {key: value for key, value in axes.items() if key != "leave_out"})
    ids = [next(iter(s.listed())).plan(s.sources).cells[0].tuned.id for s in (plain, without)]
    assert ids[0] == ids[1]


@pytest.mark.parametrize(
    ("topic", "message"),
    [("B", "is no topic in domain.*expected one of A, C"), ("X", "is no topic in domain")],
)
def test_a_topic_that_cannot_be_left_out_is_refused(tmp_path: Path, topic: str, message: str) -> None:
    sweep = swept(tmp_path, COUNTS | {("C", "train"): 8}, {"data": [4], "size": [2], "leave_out": [topic]})
    with pytest.raises(UserError, match=message):
        check_sweep(sweep.spec, sweep.study, Runtime())


def test_tuned_models_of_a_finished_sweep_are_deleted_where_recipes_are_kept(tmp_path: Path) -> None:
    sweep = sweep_of(tmp_path, [3], "restore", "wise-ft")
    trials = list(sweep.listed())
    first, second = (sweep.cell(trial) for trial in trials)
    assert first.tuned.id == second.tuned.id
    for step in {step.id: step for cell in (first, second) for step in steps_of(cell)}.values():
        write_text(sweep.store.path(step) / "model" / "training.json", "{}")
        write_text(sweep.store.path(step) / "model" / "model.safetensors", "weights")
        if step.id != next(reversed(second.evaluations.values())).id:
            sweep.store.commit(step)
    weights = sweep.store.path(first.tuned) / "model" / "model.safetensors"
    kept, deleting = (replace(sweep, runtime=Runtime(keep=keep)) for keep in ("full", "recipe"))
    release_models(deleting, trials)
    assert weights.exists()  # one evaluation that needs it is missing
    sweep.store.commit(next(reversed(second.evaluations.values())))
    release_models(kept, trials)
    assert weights.exists()
    release_models(deleting, trials)
    assert not weights.exists() and (weights.parent / "training.json").exists()
    assert (sweep.store.path(first.change) / "model" / "model.safetensors").exists()
