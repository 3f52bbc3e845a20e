"""Tuned models that a study keeps as deltas: all that is computed of them is as with folders."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from sftlab.execution.runtime import Runtime
from sftlab.files import write_text
from sftlab.studies.knowledge.build import KnowledgeBuild
from sftlab.studies.knowledge.materialize import materialize
from sftlab.studies.knowledge.stages.change import build_change, read_change
from sftlab.studies.knowledge.stages.controls import build_cell_controls, read_controls
from sftlab.studies.knowledge.stages.tuned import commit_tuned
from sftlab.studies.knowledge.stages.updates import build_cell_updates, read_updates
from sftlab.training.records import COMMIT_FILE
from sftlab.weights.delta_folder import is_packed
from tests.support.evaluated_study import build_of
from tests.support.weights_models import save_model, save_tuned
from tests.unit.studies.knowledge.test_materialize import as_best_writes, files


def measured(build: KnowledgeBuild) -> KnowledgeBuild:
    """Commit a tuned model as its stage does, and what is measured of its weights."""
    (cell,) = build.plan.cells
    assert build.plan.model is not None
    save_model(build.model_folder, "llama-tied", seed=0)
    build.commit(build.plan.model)
    folder = build.path(cell.tuned) / "model"
    save_tuned(folder, build.model_folder)
    write_text(folder / COMMIT_FILE, "{}")
    commit_tuned(build, cell)
    build_change(build, cell)
    build_cell_controls(build, cell)
    build_cell_updates(build, cell)
    for step in cell.evaluations.values():
        write_text(build.path(step) / "answers.parquet", "")
        build.commit(step)
    return build


def test_a_packed_model_is_measured_and_materialised_as_the_folder_is(tmp_path: Path) -> None:
    full, delta = (
        measured(replace(build_of(tmp_path / keep), runtime=Runtime(keep=keep))) for keep in ("full", "delta")
    )
    (cell,) = full.plan.cells
    assert not is_packed(full.tuned_model(cell)) and is_packed(delta.tuned_model(cell))
    assert (delta.tuned_model(cell) / COMMIT_FILE).read_text() == "{}"
    assert read_change(full, cell) == read_change(delta, cell)
    assert read_controls(full, cell) == read_controls(delta, cell)
    assert read_updates(full, cell) == read_updates(delta, cell)
    for percent, step in cell.evaluations.items():
        wanted = files(as_best_writes(full, cell, percent, tmp_path / f"best-{percent}"))
        assert files(materialize(delta.store, step.id, tmp_path / f"made-{percent}")) == wanted
