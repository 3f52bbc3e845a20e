"""The ceiling of the base model after examples: what the plan has for it, what is asked, and where it is shown."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from sftlab.cli.sweep import open_sweep
from sftlab.facts.table import read_facts
from sftlab.measurements.answers import answer_schema
from sftlab.studies.knowledge.plan import Plan
from sftlab.studies.knowledge.report.few_shot import by_bucket, section
from sftlab.studies.knowledge.report.view import View
from sftlab.studies.knowledge.results.answer_rows import FewShotRow
from sftlab.studies.knowledge.results.rows import AccuracyRow, CellRow
from sftlab.studies.knowledge.results.tables import Results, Variant
from sftlab.studies.knowledge.sources import resolve
from sftlab.studies.knowledge.stages.few_shot import asked_of, few_shot_rows
from sftlab.studies.knowledge.tracking.metrics import metrics_by_model
from sftlab.studies.load import load_study
from tests.support.refusals import refused
from tests.unit.studies.knowledge.report.test_fates import text
from tests.unit.studies.knowledge.test_explain import scored
from tests.unit.studies.knowledge.test_plan_refuses import build_of, own_study

COUNTS = {("A", "train"): 8, ("A", "test"): 2, ("A", "dev"): 2, ("B", "test"): 3, ("B", "dev"): 2}
SHOTS = {"shots": 2}


def study(folder: Path, **fields: Any) -> Path:
    grid = {"buckets": [4], "sizes": [3], "seeds": [0]}
    return own_study(folder, COUNTS, training_sets=grid, restore={"percents": [0, 10]}, **fields)


def plan_of(folder: Path, **fields: Any) -> Plan:
    spec = load_study(study(folder, **fields), [])
    return Plan(spec, resolve(spec, folder / "store"))


def test_the_step_moves_no_other_step_but_the_results(tmp_path: Path) -> None:
    others = {step.id for step, _ in plan_of(tmp_path).steps()}
    plan = plan_of(tmp_path, few_shot=SHOTS)
    new = {step.stage: cost for step, cost in plan.steps() if step.id not in others}
    assert set(new) == {"few-shot", "results", "best", "report"}
    # Five questions of 24 tokens, each after two examples of 32.
    assert (new["few-shot"].completions, new["few-shot"].prompt_tokens) == (5, 5 * (24 + 64))
    assert plan.few_shot is not None and plan.results.inputs["few-shot"] == plan.few_shot.id
    assert plan_of(tmp_path, few_shot={"shots": 3}).few_shot != plan.few_shot


def test_questions_come_after_known_facts_of_their_topic(tmp_path: Path) -> None:
    build = build_of(study(tmp_path, few_shot=SHOTS), tmp_path)
    scored(build)
    asked = asked_of(build)
    assert {split: table.num_rows for split, table in asked.facts.items()} == {"test": 2, "test_ood": 3}
    assert set(asked.examples) == {"A", "B"}
    assert asked.examples["A"].count("Which A is Atrain") == 2 and "Bdev" in asked.examples["B"]
    short = build_of(study(tmp_path, few_shot={"shots": 3}), tmp_path)
    asked = asked_of(short)  # topic B has two facts whose answers are known
    assert set(asked.examples) == {"A"} and asked.facts["test_ood"].num_rows == 0


def test_answers_become_accuracies_by_bucket(tmp_path: Path) -> None:
    build = build_of(study(tmp_path, few_shot=SHOTS), tmp_path)
    scored(build)  # the first test fact has bucket 1, and the other 4
    facts = read_facts(build.path(build.plan.facts), "test")["fact_id"].to_pylist()
    rows = [
        {"fact_id": fact, "split": "test", "answer": "a", "correct": right, "tokens": 1}
        for fact, right in zip(facts, (False, True), strict=True)
    ]
    step = build.plan.few_shot
    assert step is not None
    build.path(step).mkdir(parents=True)
    pq.write_table(pa.Table.from_pylist(rows, schema=answer_schema()), build.path(step) / "answers.parquet")
    build.commit(step)
    assert few_shot_rows(build) == [
        FewShotRow(2, "test", 1, 1, 0, 0.0),
        FewShotRow(2, "test", 4, 1, 1, 1.0),
        FewShotRow(2, "test", None, 2, 1, 0.5),
    ]
    assert few_shot_rows(build_of(study(tmp_path), tmp_path)) == []


def test_a_sweep_refuses_it(tmp_path: Path) -> None:
    study(tmp_path, few_shot=SHOTS)
    path = tmp_path / "sweep.yaml"
    path.write_text("name: s\nstudy: study.yaml\naxes: {size: [3], seed: [0], data: [4]}\n")
    with refused("a sweep asks no questions after examples", place="few_shot"):
        open_sweep(path, None, tmp_path / "store", [])


@pytest.fixture
def variant() -> Variant:
    cells = [CellRow(f"bucket4-n3-s{seed}", "4", 3, seed) for seed in (0, 1)]
    accuracy = [AccuracyRow("base", None, None, None, None, "test", None, 10, 1, 0.1)]
    accuracy += [
        AccuracyRow(cell.cell, "4", 3, cell.set_seed, 0.0, "test", None, 10, right, right / 10)
        for cell, right in zip(cells, (4, 6), strict=True)
    ]
    shots = [FewShotRow(2, "test", 4, 10, 8, 0.8), FewShotRow(2, "test", None, 10, 8, 0.8)]
    return Variant("restore", "restore", cells=cells, accuracy=accuracy, few_shot=shots)


def test_the_page_has_the_base_model_with_and_without_examples(variant: Variant) -> None:
    view = View(Results("t", "m", variants=[variant], reference="restore", kind="study"))
    found = section(view)
    assert found is not None and len(found.tables) == 1 and view.main is not None
    see = found.see.replace("\N{NO-BREAK SPACE}", " ")
    assert "answers 80.0 % right in domain, and 10.0 % without" in see
    table = by_bucket(view.main, "test")
    assert table is not None
    entries = {row.heading: [text(entry) for entry in row.entries] for row in table.rows}
    assert {name: found[-1] for name, found in entries.items()} == {
        "base model, question alone": "10.0 %",
        "base model, after 2 examples": "80.0 %",
        "tuned on 3 facts, all models": "50.0 %",
    }
    assert entries["base model, after 2 examples"][4] == "80.0 %"
    assert section(View(Results("t", "m", variants=[Variant("v", "s")]))) is None


def test_it_is_logged_with_the_base_model(variant: Variant) -> None:
    logged = {row.key: row.value for row in metrics_by_model(variant, [])[None, None]}
    assert logged["few_shot/test"] == 0.8 and logged["few_shot_test_by_bucket/bucket_4"] == 0.8
