"""The stage gradients as a study runs it: a Ray task a model, tables that are read back, and the same bits again."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pytest

from sftlab.facts.table import SPLITS, read_facts
from sftlab.measurements.fact_gradients import measure
from sftlab.measurements.mastery import mastery_schema
from sftlab.studies.knowledge.build import KnowledgeBuild
from sftlab.studies.knowledge.results.gradient_rows import PREDICTORS
from sftlab.studies.knowledge.stages.change import build_changes
from sftlab.studies.knowledge.stages.facts import build_facts
from sftlab.studies.knowledge.stages.gradients import (
    base_gradient_rows,
    build_gradients,
    cell_gradient_rows,
    job_of,
    read_asked,
)
from sftlab.studies.knowledge.stages.mastery import FILE, write_mastery
from sftlab.studies.knowledge.stages.training_sets import build_training_sets
from tests.support.inference_toys import start_ray
from tests.support.weights_models import save_model, save_tuned
from tests.unit.studies.knowledge.test_plan_refuses import build_of, own_study

pytestmark = pytest.mark.slow


def prepared(folder: Path) -> KnowledgeBuild:
    """A study with everything before its gradients committed; every second fact has bucket 0, the others bucket 4."""
    counts = dict.fromkeys((("A", "train"), ("A", "test"), ("B", "test")), 8)
    save_model(folder / "model", "llama-tied", seed=0)
    path = own_study(
        folder,
        counts | {("A", "dev"): 1},
        training_sets={"buckets": [0], "sizes": [3], "seeds": [0]},
        restore={"percents": [0, 10]},
        gradients={"percent": 10, "facts": 3},
        sft={"precision": "fp32"},
    )
    build = build_of(path, folder)
    build_facts(build)
    rows, splits = [], []
    for split in SPLITS:
        for place, fact in enumerate(read_facts(build.path(build.plan.facts), split).to_pylist()):
            hits = 4 * (place % 2)
            row = {"fact_id": fact["fact_id"], "topic": fact["topic"], "samples": 4, "tokens": 1}
            rows.append(row | {"hits": [hits], "r": hits / 4, "bucket": hits})
            splits.append(split)
    mastery = build.path(build.plan.mastery)
    mastery.mkdir(parents=True)
    table = pa.Table.from_pylist(rows, schema=mastery_schema())
    write_mastery(iter([table]), 32, iter(splits), mastery / FILE)
    build.commit(build.plan.mastery)
    build_training_sets(build)
    (cell,) = build.plan.cells
    save_tuned(build.path(cell.tuned) / "model", folder / "model")
    build.commit(cell.tuned)
    build_changes(build)
    return build


def test_the_stage_measures_the_base_and_every_tuned_model(tmp_path: Path) -> None:
    import ray

    build = prepared(tmp_path)
    (cell,) = build.plan.cells
    start_ray()
    try:
        build_gradients(build)
    finally:
        ray.shutdown()
    assert build.missing(*build.plan.gradients) == []
    asked = read_asked(build)
    assert sorted(asked.buckets) == [0, 0, 0, 4, 4, 4]  # three of each bucket of test
    assert len(asked.predicted) == 8 and len(asked.facts) == 6 + 1 + 4  # of both test splits, without doubles
    rows = base_gradient_rows(build)
    assert {(row.bucket, row.facts) for row in rows} == {(0, 3), (4, 3)}
    assert all(row.norm > 0 and row.cosine is not None for row in rows if row.kind == "all")
    again = measure(job_of(build, asked, None))
    norms = again.squared.sum(axis=1) ** 0.5
    whole = {row.bucket: row.norm for row in rows if row.kind == "all"}
    for bucket in (0, 4):
        mine = [norm for norm, of in zip(norms, asked.buckets, strict=True) if of == bucket]
        assert whole[bucket] == pytest.approx(sum(mine) / 3, rel=1e-12)  # the same bits in another process

    answers = {}
    for split in ("test", "test_ood"):
        ids = read_facts(build.path(build.plan.facts), split)["fact_id"].to_pylist()
        answers[split] = pa.table({"fact_id": ids, "correct": [place % 4 == 1 for place in range(len(ids))]})
    restored, forgotten = cell_gradient_rows(build, cell, answers)
    assert {(row.cell, row.percent, row.bucket) for row in restored} == {(cell.name, 10.0, b) for b in (0, 4)}
    assert all(row.share is not None and 0 < row.share < 1 for row in restored if row.kind == "all")
    assert [(row.split, row.predictor, row.facts, row.forgotten) for row in forgotten] == [
        (split, name, 4, 2) for split in ("test", "test_ood") for name in PREDICTORS
    ]
