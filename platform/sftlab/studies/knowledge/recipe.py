"""What a model of a ladder is made of: as one JSON for other tools (docs/models.md has its fields), and as a card."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from sftlab.store.artifact import Store
from sftlab.store.hub import name_of, origin_of
from sftlab.store.provenance import package_versions
from sftlab.store.record import FOLDER_DIGITS
from sftlab.strategies import get_edit_strategy
from sftlab.studies.knowledge.materialize import Recipe, cuts_of
from sftlab.studies.knowledge.tracking.card import licence_of
from sftlab.tracking.names import percent_text
from sftlab.weights.cut import percent_label

FORMAT, VERSION = "sftlab.recipe", 1
RECIPE_FILE, CARD_FILE = "recipe.json", "README.md"


def recipe_json(store: Store, recipe: Recipe) -> dict[str, Any]:
    """All that the model's weights follow from: two models by their content, and what was done to them."""
    inputs, restore = recipe.evaluation.inputs, recipe.restore
    tuned = store.records("tuned", inputs["tuned"])[0]
    cuts = cuts_of(store, recipe)
    edit: dict[str, Any] = {"percent": recipe.percent, "method": restore.method or "restore"}
    if restore.method is not None:
        edit["parameters"] = get_edit_strategy(restore.method, restore.parameters).model_dump(mode="json")
    if cuts:
        edit |= {
            "share_of": restore.share_of or "weights",
            "cut": cuts[percent_label(recipe.percent)].to_json(),
        }
    origin = origin_of(recipe.base)
    return {
        "format": FORMAT,
        "version": VERSION,
        "id": recipe.evaluation.id,
        "name": recipe.evaluation.slug,
        "base": {"id": inputs["model"], "name": name_of(recipe.base), "hub": origin},
        "tuned": {"id": tuned.id, "name": tuned.slug, "spec": tuned.spec, "inputs": dict(tuned.inputs)},
        "edit": edit,
        "written_by": package_versions(),
    }


def write_beside(store: Store, recipe: Recipe, folder: Path) -> None:
    """Write recipe.json and README.md into a written model's folder."""
    made = recipe_json(store, recipe)
    text = json.dumps(made, indent=1, ensure_ascii=False) + "\n"
    (folder / RECIPE_FILE).write_text(text, encoding="utf-8")
    (folder / CARD_FILE).write_text(recipe_card(made, recipe.base), encoding="utf-8")


def recipe_card(made: Mapping[str, Any], base: Path) -> str:
    """README.md of a model that is passed on: what it is made of, its licence, and how to load it."""
    licence, files = licence_of(base)
    named, edit = made["base"], made["edit"]
    of_hub = (named["hub"] or "").partition("@")[0]
    head: dict[str, Any] = {"library_name": "transformers", "pipeline_tag": "text-generation"}
    head |= {"base_model": of_hub} if of_hub else {}
    head |= {"license": licence or "unknown", "tags": ["sftlab", edit["method"]]}
    settings = {
        "base model": f"{named['hub'] or named['name']} (`{named['id'][:FOLDER_DIGITS]}`)",
        "fine-tuned model": f"{made['tuned']['name']} (`{made['tuned']['id'][:FOLDER_DIGITS]}`)",
        "edit": edit["method"],
        "percent": percent_text(edit["percent"]),
        **{f"edit.{key}": value for key, value in edit.get("parameters", {}).items()},
        "id": f"`{made['id']}`",
    }
    if "cut" in edit:
        cut = edit["cut"]
        settings["restored"] = f"{cut['count']:,} of {cut['total']:,} weights of the region {cut['region']}"
    rows = "\n".join(f"| {key} | {str(value).replace('|', ' ')} |" for key, value in settings.items())
    terms = (
        f"The base model's card names the licence **{licence}**, which holds for this model too."
        if licence
        else "The base model names no licence; look its terms up before you pass this model on."
    )
    if files:
        terms += f" Files beside its weights to read: {', '.join(files)}."
    return f"""---
{yaml.safe_dump(head, sort_keys=False, allow_unicode=True)}---

# {made["name"]}

{name_of(base)}, fine-tuned on facts and edited by sftlab. `{RECIPE_FILE}` has all that its weights follow from.

## Settings

| setting | value |
|---|---|
{rows}

## How to load

```python
from transformers import AutoModelForCausalLM, AutoTokenizer

model = AutoModelForCausalLM.from_pretrained(folder)
tokenizer = AutoTokenizer.from_pretrained(folder)
```

It answers the prompt `<|question|> QUESTION <|answer|>`.

## Licence and limits

{terms} The facts that it was fine-tuned on may have terms of their own.

It was measured on short questions about facts alone. Other abilities of the base model may have suffered.
"""
