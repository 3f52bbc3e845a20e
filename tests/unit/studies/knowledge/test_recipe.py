"""The recipe of a model as JSON, from which another tool makes the weights; models on a hub, with their card."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from huggingface_hub import constants

from sftlab.cli.store import Named, Target, push_model
from sftlab.errors import UserError
from sftlab.execution.runtime import Runtime
from sftlab.studies.knowledge.materialize import find_recipe, materialize
from sftlab.studies.knowledge.recipe import recipe_card, recipe_json
from tests.support.evaluated_study import build_of, finish
from tests.support.hub_server import serving
from tests.support.refusals import refused
from tests.support.weights_models import stored


def made_by_another_tool(
    recipe: dict[str, Any], base: dict[str, torch.Tensor], tuned: dict[str, torch.Tensor]
) -> dict[str, torch.Tensor]:
    """The model of a recipe of the restoration, with numpy alone and by docs/models.md."""
    cut, made = recipe["edit"]["cut"], {}
    assert (cut["order"], cut["region"]) == ("top", "layers")
    for name, new in tuned.items():
        old = base[name]
        p, s = old.float().numpy().ravel(), new.float().numpy().ravel()
        change = (np.abs(s - p) / (np.abs(p) + np.float32(1e-8))).astype(np.float32)
        keys = change.view(np.uint32).astype(np.int64)
        at = np.arange(len(keys))
        ties = (name < cut["tie_name"]) | ((name == cut["tie_name"]) & (at < cut["tie_position"]))
        back = (keys > cut["threshold"]) | ((keys == cut["threshold"]) & ties)
        back &= ".layers." in name
        mask = torch.from_numpy(back.reshape(new.shape))
        made[name] = torch.where(mask, old, new)
    return made


def test_another_tool_makes_the_weights_of_a_recipe(tmp_path: Path) -> None:
    build = build_of(tmp_path)
    cell = finish(build)
    step = cell.evaluations[10.0]
    recipe = json.loads(json.dumps(recipe_json(build.store, find_recipe(build.store, step.id))))
    assert (recipe["format"], recipe["version"], recipe["id"]) == ("sftlab.recipe", 1, step.id)
    assert recipe["base"] == {"id": build.plan.model_id, "name": "model", "hub": None}
    assert recipe["tuned"]["id"] == cell.tuned.id and recipe["edit"]["method"] == "restore"
    base, tuned = stored(build.model_folder), stored(build.path(cell.tuned) / "model")
    made = made_by_another_tool(recipe, base, tuned)
    written = stored(materialize(build.store, step.id))
    assert made.keys() == written.keys()
    assert all(torch.equal(made[name], tensor) for name, tensor in written.items())
    differing = sum(int((tuned[name] != tensor).sum()) for name, tensor in written.items())
    assert 0 < differing <= recipe["edit"]["cut"]["count"]


def test_a_recipe_of_another_method_has_its_parameters(tmp_path: Path) -> None:
    build = build_of(tmp_path, strategy="dare")
    cell = finish(build)
    edit = recipe_json(build.store, find_recipe(build.store, cell.evaluations[40.0].id))["edit"]
    assert edit["method"] == "dare" and edit["percent"] == 40.0 and "cut" not in edit
    assert edit["parameters"]["seed"] == 0


def test_a_card_names_the_base_model_of_the_hub_and_its_licence(tmp_path: Path) -> None:
    build = build_of(tmp_path)
    cell = finish(build)
    made = recipe_json(build.store, find_recipe(build.store, cell.evaluations[10.0].id))
    base = tmp_path / "models--org--base" / "snapshots" / "abc"
    base.mkdir(parents=True)
    (base / "README.md").write_text("---\nlicense: mit\n---\n")
    made["base"] |= {"hub": "org/base@abc"}
    card = recipe_card(made, base)
    head = yaml.safe_load(card.split("---\n")[1])
    assert (head["base_model"], head["license"]) == ("org/base", "mit")
    assert "| base model | org/base@abc" in card and "licence **mit**" in card


def test_a_pushed_model_is_on_the_hub_with_card_and_recipe(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    build = build_of(tmp_path)
    cell = finish(build)
    step = cell.evaluations[10.0]
    runtime = Runtime(store=str(build.store.root))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setenv("HF_TOKEN", "hf_test")
    with serving() as hub:
        monkeypatch.setattr(constants, "ENDPOINT", hub.address)
        shown = push_model(Named(step.id[:12]), Target("org/restored"), runtime).data
        assert shown["url"] == f"{hub.address}/org/restored"
        found = hub.repositories["models", "org/restored"][shown["commit"]]
    folder = materialize(build.store, step.id)
    assert {name: found[name] for name in found if name not in ("README.md", "recipe.json")} == {
        file.name: file.read_bytes() for file in folder.iterdir()
    }
    assert json.loads(found["recipe.json"])["id"] == step.id
    assert found["README.md"].startswith(b"---\nlibrary_name: transformers\n")
    assert not list(build.store.root.glob(".push-*"))


@pytest.mark.parametrize("name", ["restored", "org/name@main", "./x", "a/b/c"])
def test_what_is_no_name_on_a_hub_is_refused_before_anything_is_written(name: str, tmp_path: Path) -> None:
    with refused("is no name of a model on a hub", expected="org/name"):
        push_model(Named("0" * 12), Target(name), Runtime(store=str(tmp_path / "store")))


def test_an_upload_without_a_hub_is_refused_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    build = build_of(tmp_path)
    cell = finish(build)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    runtime = Runtime(store=str(build.store.root))
    with pytest.raises(
        UserError, match=r"^org/x: HF_HUB_OFFLINE is set, so nothing is uploaded; unset it\.$"
    ):
        push_model(Named(cell.evaluations[10.0].id), Target("org/x"), runtime)
