"""Tuned models whose weights were deleted, built again from their records; what trains copies the old folder."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from sftlab.execution.release import release
from sftlab.execution.runtime import Runtime
from sftlab.files import write_text
from sftlab.store.record import Damaged
from sftlab.studies.knowledge.materialize import Recipe, find_recipe, materialize, write_model
from sftlab.studies.knowledge.pipeline import STAGES
from sftlab.studies.knowledge.rebuild import TrainedAgain, with_weights
from sftlab.studies.knowledge.recipe import recipe_json
from sftlab.training.records import SFTRun
from tests.support.evaluated_study import build_of, finish
from tests.support.refusals import refused
from tests.unit.studies.knowledge.test_materialize import as_best_writes, files


def test_a_deleted_model_is_trained_again_with_its_settings_and_gives_the_same_folder(tmp_path: Path) -> None:
    build = build_of(tmp_path)
    cell = finish(build)
    store, step = build.store, cell.evaluations[10.0]
    write_text(build.path(cell.training_set) / "train.parquet", "")
    build.commit(cell.training_set)
    wanted = files(as_best_writes(build, cell, 10.0, tmp_path / "best"))
    before = recipe_json(store, find_recipe(store, step.id))
    shutil.copytree(build.path(cell.tuned) / "model", tmp_path / "copy")
    with with_weights(store, find_recipe(store, step.id), Runtime(), print) as whole:
        assert whole.tuned == build.path(cell.tuned) / "model"
    needed = [cell.tuned, cell.change, *cell.evaluations.values()]
    assert release(store, STAGES, needed) > 0 and not list(build.path(cell.tuned).rglob("*.safetensors"))

    recipe = find_recipe(store, step.id)
    assert recipe_json(store, recipe) == before
    with refused("were deleted", advice=f"`sftlab materialize {step.id[:12]}` trains it again"):
        materialize(store, step.id)
    with pytest.raises(Damaged, match="deleted to save space"):
        build.tuned_model(cell)

    runs: list[SFTRun] = []
    lines: list[str] = []

    def train(run: SFTRun) -> None:
        runs.append(run)
        shutil.copytree(tmp_path / "copy", run.output_dir)

    record = store.find(cell.tuned)
    assert record is not None
    again = TrainedAgain(store, recipe.base, tmp_path / "again", train, lines.append)
    write_model(store, again_with(recipe, again.folder(record)), tmp_path / "made")
    assert files(tmp_path / "made") == wanted
    (run,) = runs
    assert run.spec == cell.sft and run.run_id == cell.run_id and run.mask is None
    assert run.train_file == str(build.path(cell.training_set) / "train.parquet")
    assert run.base_model == str(build.model_folder) and len(lines) == 1

    weights = next((tmp_path / "copy").glob("*.safetensors"))
    weights.write_bytes(weights.read_bytes()[:-1] + b"x")
    TrainedAgain(store, recipe.base, tmp_path / "other", train, lines.append).folder(record)
    assert "model.safetensors has other bytes than before it was deleted" in lines[-1]


def again_with(recipe: Recipe, tuned: Path) -> Recipe:
    return replace(recipe, tuned=tuned)
