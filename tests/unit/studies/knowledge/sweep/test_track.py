"""What a sweep hands to MLflow, from a store without answers; no MLflow."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

from sftlab.execution.progress import SilentProgress
from sftlab.execution.runtime import Runtime
from sftlab.files import write_text
from sftlab.store.artifact import Store
from sftlab.studies.knowledge.results.rows import CellRow, ChoiceRow, GroupRow
from sftlab.studies.knowledge.results.tables import Results, Variant
from sftlab.studies.knowledge.sources import resolve
from sftlab.studies.knowledge.stages.finished import Finished
from sftlab.studies.knowledge.stages.tracked import base_model, card_of, key_of, tracked_models
from sftlab.studies.knowledge.stages.training_sets import training_file
from sftlab.studies.knowledge.sweep.steps import finish
from sftlab.studies.knowledge.sweep.sweep import Sweep
from sftlab.studies.knowledge.tracking.metrics import tie_text
from sftlab.studies.knowledge.tracking.runs import note
from sftlab.studies.load import load_sweep

CONFIGS = Path(__file__).parents[5] / "jobs" / "configs"
AXES = {"data": [0], "size": [2], "seed": [0, 1], "strategy": ["restore", "wise-ft"], "percent": [0, 10]}


def sweep_of(tmp_path: Path, axes: dict[str, object] | None = None, **fields: object) -> Sweep:
    document = {"name": "s", "study": str(CONFIGS / "tiny.yaml"), "axes": axes or AXES, **fields}
    path = tmp_path / "sweep.yaml"
    path.write_text(yaml.safe_dump(document))
    spec, study = load_sweep(path)
    store = Store(tmp_path / "store")
    return Sweep(spec, study, resolve(study, store.root), store, Runtime(), SilentProgress())


def found_of(tmp_path: Path, axes: dict[str, object] | None = None, **fields: object) -> Finished:
    return finish(sweep_of(tmp_path, axes, **fields), [])


@pytest.fixture
def finished(tmp_path: Path) -> Finished:
    """All trials' training sets and evaluations are committed, as files that say nothing."""
    sweep = sweep_of(tmp_path)
    found = finish(sweep, list(sweep.listed()))
    for _, _, _, build, cell in found.cells:
        if build.missing(cell.training_set):
            file = Path(training_file(build, cell))
            file.parent.mkdir(parents=True)
            pq.write_table(pa.table({"fact_id": [cell.name, "b"]}), file)
            build.commit(cell.training_set)
        for step in build.missing(*cell.evaluations.values()):
            write_text(build.path(step) / "answers.parquet", "")
            build.commit(step)
    return found


def results_of(finished: Finished, percent: float) -> Results:
    variants: dict[str, list[CellRow]] = {}
    for variant, _, _, _, cell in finished.cells:
        variants.setdefault(variant, []).append(CellRow(cell.name, "0", 2, cell.seed))
    best = ChoiceRow(
        "recommended", "wise-ft", "wise-ft", "0", 2, percent, 2, 0.5, 0.4, 0.5, 0.4, 0.5, 0.4, 20
    )
    return Results(
        "s",
        "pocket Llama",
        variants=[Variant(name, name, cells=cells[::-1]) for name, cells in variants.items()],
        choice=[best],
    )


@pytest.mark.parametrize("percent", [0.0, 10.0])
def test_models_are_recipes_but_for_the_tuned_ones_and_the_best(finished: Finished, percent: float) -> None:
    best = Path("best")
    models = tracked_models(finished, results_of(finished, percent), best)
    assert {name: len(ladder) for name, ladder in models.items()} == {"restore": 4, "wise-ft": 4}
    for variant, _, _, build, cell in finished.cells:
        ladder = {m.percent: m for m in models[variant] if m.cell == cell.name}
        assert {p: m.id for p, m in ladder.items()} == {p: s.id for p, s in cell.evaluations.items()}
        paths = {0.0: build.path(cell.tuned) / "model", 10.0: None}
        if (variant, cell.seed) == ("wise-ft", 0):
            paths[percent] = best
        assert {p: m.path for p, m in ladder.items()} == paths
        for model in ladder.values():
            assert model.provenance["python"] and model.train_set is not None
            assert (model.train_set.name, model.train_set.rows) == (cell.name, 2)
            assert model.train_set.context == "training"


def test_a_cell_that_is_there_twice_is_logged_once(finished: Finished) -> None:
    doubled = replace(finished, cells=[*finished.cells, *finished.cells])
    results = results_of(finished, 10.0)
    assert tracked_models(doubled, results, Path("b")) == tracked_models(finished, results, Path("b"))


def test_the_card_names_the_model_that_can_be_materialised(finished: Finished) -> None:
    card = card_of(finished, results_of(finished, 10.0))
    (cell,) = [f.cell for f in finished.cells if (f.variant, f.cell.seed) == ("wise-ft", 0)]
    assert f"`{cell.evaluations[10.0].id}`" in card and "pre-trained from scratch" in card
    assert card_of(finished, replace(results_of(finished, 10.0), choice=[])) == ""


def test_the_sweep_s_key_outlives_its_axes_and_not_its_study(tmp_path: Path) -> None:
    key = key_of(found_of(tmp_path))
    assert key_of(found_of(tmp_path, {**AXES, "seed": [0, 1, 2], "percent": [0, 10, 20]})) == key
    assert key_of(found_of(tmp_path, {**AXES, "data": [0, 4]}, limits={"max_cells": 90})) == key
    assert key_of(found_of(tmp_path, set={"sft.learning_rate": 0.5})) != key
    assert key_of(found_of(tmp_path, name="t")) != key


def test_a_brought_base_model_s_licence_is_read_beside_its_weights(tmp_path: Path) -> None:
    folder = tmp_path / "base"
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    (folder / "README.md").write_text("---\nlicense: apache-2.0\n---\n")
    (folder / "NOTICE").write_text("n")
    (tmp_path / "facts.jsonl").write_text('{"subject": "Bern", "object": "Switzerland", "topic": "P17"}\n')
    study = {"name": "own", "facts": {"source": str(tmp_path / "facts.jsonl")}}
    study["model"] = {"path": str(folder), "revision": "abc"}
    (tmp_path / "study.yaml").write_text(yaml.safe_dump(study))
    base = base_model(sweep_of(tmp_path, study=str(tmp_path / "study.yaml")).base)
    assert (base.name, base.licence, base.licence_files) == ("base", "apache-2.0", ("NOTICE",))
    assert "revision abc" in base.origin


def test_the_card_and_the_note_tell_of_ties(finished: Finished) -> None:
    results = results_of(finished, 10.0)
    rows = [
        GroupRow(variant, "0", 2, percent, "dev", None, 2, 12, score, 0.0, score, score)
        for variant, percent, score in (
            ("wise-ft", 0.0, 0.4),
            ("wise-ft", 10.0, 0.5),
            ("restore", 0.0, 0.4),
            ("restore", 10.0, 0.5),
        )
    ]
    tied = replace(results, groups=rows)
    told = "1 other has the same dev score: dev makes no choice between them"
    assert told in card_of(finished, tied) and told in note(tied, 4, 8)
    alone = replace(results, groups=rows[:-1])
    assert "no choice" not in card_of(finished, alone) + note(alone, 4, 8)
    assert tie_text(0) == "" and "3 others have" in tie_text(3)
