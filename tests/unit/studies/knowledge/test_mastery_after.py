"""Mastery after tuning: what the plan has for it, which model is the chosen one, and what is counted."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from sftlab.cli.explain import way_json, way_text
from sftlab.cli.sweep import open_sweep
from sftlab.errors import UserError
from sftlab.facts.table import read_facts
from sftlab.measurements.mastery import mastery_schema
from sftlab.measurements.mastery_again import MASTERY
from sftlab.studies.knowledge.build import KnowledgeBuild
from sftlab.studies.knowledge.explain import explain
from sftlab.studies.knowledge.plan import Plan
from sftlab.studies.knowledge.results.answer_rows import MasteryAfterRow
from sftlab.studies.knowledge.sources import resolve
from sftlab.studies.knowledge.stages.evaluation import read_answers
from sftlab.studies.knowledge.stages.mastery_after import (
    mastery_after_rows,
    mastery_before,
    percent_of,
    read_mastery_after,
)
from sftlab.studies.load import load_study
from tests.unit.studies.knowledge.test_explain import ASKED, answer, scored
from tests.unit.studies.knowledge.test_plan_refuses import build_of, own_study

COUNTS = {("A", "train"): 8, ("A", "test"): 2, ("A", "dev"): 2}
GRID = {"buckets": [4], "sizes": [3], "seeds": [0]}


def study(folder: Path, **fields: Any) -> Path:
    return own_study(folder, COUNTS, training_sets=GRID, restore={"percents": [0, 10, 40]}, **fields)


def plan_of(folder: Path, **fields: Any) -> Plan:
    spec = load_study(study(folder, **fields), [])
    return Plan(spec, resolve(spec, folder / "store"))


def test_the_steps_move_no_other_step_but_the_results(tmp_path: Path) -> None:
    without, plan = plan_of(tmp_path), plan_of(tmp_path, mastery_after=["chosen", 40, 0])
    others = {step.id for step, _ in without.steps()}
    added = [(step, cost) for step, cost in plan.steps() if step.stage == "mastery-after"]
    assert [step.slug for step, _ in added] == [f"bucket4-n3-s0-{at}" for at in ("r0", "r40", "chosen")]
    assert {step.stage for step, _ in plan.steps() if step.id not in others} == {
        "mastery-after",
        "results",
        "best",
        "report",
    }
    # Two test facts, one template, ten completions; the ladder decides the choice alone.
    assert [cost.completions for _, cost in added] == [20, 20, 20]
    ladder = {step.id for step in plan.cells[0].evaluations.values()}
    assert [ladder <= set(step.inputs.values()) for step, _ in added] == [False, False, True]
    assert {step.id for step, _ in added} <= set(plan.results.inputs.values())


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ([5], "mastery_after: 5 % is not of the ladder; restore.percents has 0, 10, 40"),
        (["best"], "expected a percentage of restore.percents, or chosen"),
        ([101], "expected a percentage of restore.percents, or chosen"),
        ([True], "expected a number"),
        ([0, 0.0], "0 is listed twice"),
        ([], "at least 1 item"),
    ],
)
def test_percentages_that_no_model_has_are_refused(tmp_path: Path, given: list[Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        load_study(study(tmp_path, mastery_after=given), [])


def test_a_sweep_refuses_it(tmp_path: Path) -> None:
    study(tmp_path, mastery_after=[0])
    path = tmp_path / "sweep.yaml"
    path.write_text("name: s\nstudy: study.yaml\naxes: {size: [3], seed: [0], data: [4]}\n")
    with pytest.raises(UserError, match="mastery_after: a sweep scores no mastery after tuning"):
        open_sweep(path, None, tmp_path / "store", [])


@pytest.fixture
def build(tmp_path: Path) -> KnowledgeBuild:
    found = build_of(study(tmp_path, mastery_after=["chosen"]), tmp_path)
    scored(found)
    return found


def answer_ladder(build: KnowledgeBuild, right: dict[float, list[bool]]) -> None:
    """Answers of every model of the ladder: `right` to the dev facts, the first of the two test facts right."""
    (cell,) = build.plan.cells
    for at, step in cell.evaluations.items():
        answer(build, step, [True, False], right[at])


def test_the_chosen_model_has_the_best_dev_score_of_its_run(build: KnowledgeBuild) -> None:
    answer_ladder(build, {0.0: [True, False], 10.0: [True, True], 40.0: [True, True]})
    (cell,) = build.plan.cells
    assert percent_of(build, cell, "chosen") == 10.0  # the smaller of two equal ones
    assert percent_of(build, cell, 40.0) == 40.0


def after(build: KnowledgeBuild, hits: list[int | None]) -> pa.Table:
    """Mastery of the test facts by so many of four completions; None: it could not be scored."""
    facts = read_facts(build.path(build.plan.facts), "test")["fact_id"].to_pylist()
    rows = [
        {"fact_id": fact, "topic": "A", "samples": 4, "tokens": 1}
        | ({"error": "e"} if hit is None else {"hits": [hit], "r": hit / 4, "bucket": hit})
        for fact, hit in zip(facts, hits, strict=True)
    ]
    return pa.Table.from_pylist(rows, schema=mastery_schema())


def test_wrong_answers_are_divided_by_what_the_same_model_still_completes(build: KnowledgeBuild) -> None:
    answer_ladder(build, {at: [True, True] for at in (0.0, 10.0, 40.0)})
    (cell,) = build.plan.cells
    answers, before = read_answers(build, cell.evaluations[10.0]), mastery_before(build)
    # The first fact (R 0.25, right) is never completed any more; the second (R 1, wrong) is, twice of four times.
    found = mastery_after_rows("c", 10.0, after(build, [0, 2]), answers, before)
    counts = {"right_known": 0, "right_unknown": 0, "wrong_known": 0, "wrong_unknown": 0}
    assert found == [
        MasteryAfterRow("c", 10.0, "test", 1, 1, 0.25, 0.0, 1, 0, **{**counts, "right_unknown": 1}),
        MasteryAfterRow("c", 10.0, "test", 4, 1, 1.0, 0.5, 1, 0, **{**counts, "wrong_known": 1}),
    ]
    higher = mastery_after_rows("c", 10.0, after(build, [3, None]), answers, before)
    assert [(row.bucket, row.lower, row.higher, row.right_known) for row in higher] == [(1, 0, 1, 1)]


def test_a_fact_is_shown_with_its_mastery_after_tuning(build: KnowledgeBuild) -> None:
    answer_ladder(build, {at: [True, True] for at in (0.0, 10.0, 40.0)})
    (cell,) = build.plan.cells
    step = cell.mastery_after["chosen"]
    build.path(step).mkdir(parents=True)
    pq.write_table(after(build, [3, None]), build.path(step) / MASTERY)
    build.commit(step)
    assert read_mastery_after(build, step)["r"].to_pylist() == [0.75, None]
    found = explain(build, ASKED)
    assert found.cells[0].mastery == {0.0: 0.75}  # dev chose to restore nothing
    assert way_json(found)["cells"][0]["mastery"] == {"0": 0.75}
    assert "mastery R after restoring:\n  bucket4-n3-s0 0 %: 0.750" in way_text(found)
