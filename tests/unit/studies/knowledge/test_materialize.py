"""Models that were kept as recipes, as folders again; no engine and no training."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import pytest

from sftlab.errors import UserError
from sftlab.strategies import edit_for, registry
from sftlab.studies.knowledge.build import KnowledgeBuild
from sftlab.studies.knowledge.materialize import find_recipe, materialize, write_model
from sftlab.studies.knowledge.plan import Cell
from sftlab.studies.knowledge.stages.change import read_change
from sftlab.weights.restoration import write_restored
from tests.support.evaluated_study import build_of, finish
from tests.support.refusals import refused
from tests.support.weights_models import save_model, stored


def as_best_writes(build: KnowledgeBuild, cell: Cell, percent: float, folder: Path) -> Path:
    """The folder that the stage `best` would write."""
    edit = edit_for(build.plan.spec.restore, percent, read_change(build, cell).cuts)
    written = write_restored(build.model_folder, build.path(cell.tuned) / "model", {"x": edit}, folder)
    return written["x"]


def files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


@pytest.mark.parametrize("strategy", [None, "wise-ft", "ties", "dare"])
@pytest.mark.parametrize("percent", [0.0, 40.0])
def test_a_recipe_becomes_the_folder_that_best_writes(
    strategy: str | None, percent: float, tmp_path: Path
) -> None:
    build = build_of(tmp_path, strategy=strategy)
    cell = finish(build)
    step = cell.evaluations[percent]
    heard: list[tuple[int, int]] = []
    folder = materialize(build.store, step.id, progress=lambda done, total: heard.append((done, total)))
    assert folder == build.store.root / "materialized" / f"{step.slug}-{step.id[:12]}"
    assert files(folder) == files(as_best_writes(build, cell, percent, tmp_path / "best"))
    tuned = stored(build.path(cell.tuned) / "model")
    assert (percent == 0) == all((stored(folder)[name] == tensor).all() for name, tensor in tuned.items())
    assert heard and heard[-1][0] == heard[-1][1]
    assert sorted(path.name for path in folder.parent.iterdir()) == [folder.name]


def test_a_cut_that_no_change_record_has_is_found_again(tmp_path: Path) -> None:
    build = build_of(tmp_path)
    cell = finish(build)
    wanted = as_best_writes(build, cell, 10.0, tmp_path / "best")
    shutil.rmtree(build.path(cell.change))
    folder = materialize(build.store, cell.evaluations[10.0].id[:8], tmp_path / "new" / "model")
    assert folder == tmp_path / "new" / "model" and files(folder) == files(wanted)


def test_ids_that_say_too_little_or_something_else_are_told(tmp_path: Path) -> None:
    build = build_of(tmp_path)
    cell = finish(build)
    store, step = build.store, cell.evaluations[10.0]
    assert find_recipe(store, step.id[:8].upper()).evaluation.id == step.id
    for id, message in (
        (step.id[:7], "at least 8 of its digits"),
        ("bucket0-n4-s0", "at least 8 of its digits"),
        ("f" * 64, "holds no evaluation of this id"),
        (cell.tuned.id, r"is a result of the stage tuned \(bucket0-n4-s0\)"),
        (build.plan.base_evaluation.id, "the evaluation of the base model itself"),
    ):
        with pytest.raises(UserError, match=message):
            materialize(store, id)
    twin = build.path(step).with_name(f"other-{step.id[:12]}")
    shutil.copytree(build.path(step), twin)
    with refused("begins the ids of 2 evaluations", advice="give more digits"):
        materialize(store, step.id[:10])


def test_parts_that_are_gone_and_outputs_that_exist_are_told(tmp_path: Path) -> None:
    build = build_of(tmp_path)
    cell = finish(build)
    id = cell.evaluations[10.0].id
    (tmp_path / "there").mkdir()
    with pytest.raises(UserError, match="there: exists already"):
        materialize(build.store, id, tmp_path / "there")
    weights = next((build.path(cell.tuned) / "model").glob("*.safetensors"))
    weights.write_bytes(weights.read_bytes()[:-1])
    with pytest.raises(UserError, match=r"is damaged \(model/model\.safetensors has"):
        materialize(build.store, id)
    shutil.rmtree(build.path(cell.tuned))
    with pytest.raises(UserError, match=r"its tuned model \w{12} is no longer in"):
        materialize(build.store, id)
    assert not (build.store.root / "materialized").exists()


def test_a_killed_writing_leaves_no_folder_and_is_started_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    build = build_of(tmp_path)
    recipe = find_recipe(build.store, finish(build).evaluations[10.0].id)
    target = tmp_path / "model"
    (tmp_path / ".model.part" / "restored-10").mkdir(parents=True)

    def fails(*_: object, **__: object) -> None:
        raise OSError("disk")

    with monkeypatch.context() as patch, pytest.raises(OSError, match="disk"):
        patch.setattr("sftlab.weights.restoration.write_restored", fails)
        write_model(build.store, recipe, target)
    assert not target.exists() and not (tmp_path / ".model.part").exists()
    write_model(build.store, recipe, target)
    assert stored(target)


def test_a_brought_base_model_is_found_where_it_was_or_asked_for(tmp_path: Path) -> None:
    base = tmp_path / "base"
    save_model(base, "llama", seed=0)
    (tmp_path / "facts.jsonl").write_text('{"subject": "Bern", "object": "Switzerland", "topic": "P17"}\n')
    build = build_of(tmp_path, f"facts.source={tmp_path / 'facts.jsonl'}", f"model.path={base}")
    cell = finish(build)
    id = cell.evaluations[40.0].id
    found = materialize(build.store, id)
    moved = base.rename(tmp_path / "moved")
    with refused("is not where it was", advice="give its folder by --base"):
        materialize(build.store, id, tmp_path / "a")
    with pytest.raises(UserError, match="holds no model"):
        materialize(build.store, id, tmp_path / "a", tmp_path / "nowhere")
    with refused("is another model, whose files hash to"):
        materialize(build.store, id, tmp_path / "a", build.path(cell.tuned) / "model")
    assert files(materialize(build.store, id, tmp_path / "b", moved)) == files(found)


PLUGIN = """
from dataclasses import dataclass
from sftlab.strategies import EditStrategy, register
from sftlab.weights.edits import TensorEdit

@dataclass(frozen=True)
class Mean(TensorEdit):
    def edit(self, name, base, tuned):
        return (base + tuned) / 2

@register
class MeanOfBoth(EditStrategy):
    name = "mean-of-both"
    title = "Mean of both"
    source = "own idea"

    def edit(self, percent, cut):
        return Mean()
"""


def test_a_strategy_of_one_s_own_is_known_by_its_plugin(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from sftlab.strategies import load_plugins, registry

    (tmp_path / "mean_of_both.py").write_text(PLUGIN)
    monkeypatch.syspath_prepend(tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(registry, "KNOWN", dict(registry.KNOWN))
        load_plugins(["mean_of_both"])
        build = build_of(tmp_path, strategy="mean-of-both")
        id = finish(build).evaluations[40.0].id
    monkeypatch.delitem(sys.modules, "mean_of_both")
    with pytest.raises(UserError, match="strategy 'mean-of-both' is unknown"):
        materialize(build.store, id)
    with monkeypatch.context() as patch:
        patch.setattr(registry, "KNOWN", dict(registry.KNOWN))
        load_plugins(["mean_of_both"])
        assert stored(materialize(build.store, id))


def test_a_model_of_other_code_than_was_evaluated_is_not_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(registry.SOURCES, "wise-ft", "a" * 64)
    build = build_of(tmp_path, strategy="wise-ft")
    cell = finish(build)
    assert (
        cell.evaluations[40.0].inputs["method"] == "a" * 64 and "method" not in cell.evaluations[0.0].inputs
    )
    find_recipe(build.store, cell.evaluations[40.0].id)
    monkeypatch.setitem(registry.SOURCES, "wise-ft", "b" * 64)
    with refused("source of strategy wise-ft has changed", value="bbbbbbbbbbbb", expected="aaaaaaaaaaaa"):
        find_recipe(build.store, cell.evaluations[40.0].id)
    find_recipe(build.store, cell.evaluations[0.0].id)
