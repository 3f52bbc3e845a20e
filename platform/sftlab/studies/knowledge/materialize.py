"""A model of a ladder as a folder again: from the record of its evaluation, with what that names in the store."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sftlab.config.overrides import validated
from sftlab.errors import UserError, within
from sftlab.shell import command
from sftlab.store.artifact import Store
from sftlab.store.mirror import pull
from sftlab.store.outside import MISSING
from sftlab.store.record import FOLDER_DIGITS, Damaged, Record
from sftlab.strategies import (
    RestoreSpec,
    edit_for,
    get_edit_strategy,
    source_of,
    with_method,
)
from sftlab.studies.knowledge.stages.change import FILE as CHANGE_FILE
from sftlab.tracking.models import artifact_of
from sftlab.tracking.settings import TrackingSettings
from sftlab.weights import restoration
from sftlab.weights.change_profile import profile, read_profile
from sftlab.weights.cut import Cut, percent_label
from sftlab.weights.model_id import folder_of, model_hash

FEWEST_DIGITS = 8
_LADDER = ("percents", "method", "parameters")  # what a profile of the change does not depend on


@dataclass(frozen=True)
class Recipe:
    """What a model of a ladder is made of: two folders, and how. percent: 0 is the tuned model as it is."""

    evaluation: Record
    base: Path
    tuned: Path
    restore: RestoreSpec
    percent: float

    @property
    def name(self) -> str:
        return f"{self.evaluation.slug}-{self.evaluation.id[:FOLDER_DIGITS]}"


def materialize(
    store: Store,
    id: str,
    output: Path | str | None = None,
    base: Path | None = None,
    tracking: TrackingSettings | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Path:
    """Write the folder of an evaluated model: the same bytes as the stage `best` writes.

    Args:
        id: of the evaluation, as the report and MLflow show it; a unique beginning of at least 8 digits; or a
            model's address in MLflow: `models:/m-...`, `models:/NAME@champion`, `m-...`.
        output: the new folder; `materialized/` below the store if unset.
        base: folder of the base model, where the store does not know where it is.
        tracking: where to look up MLflow addresses; the store's own database if unset.
        progress: hears bytes done and of all.

    Returns the folder. Raises UserError for an id that is unknown or ambiguous or not an evaluation, for parts
    that are no longer there, and for an output that exists.
    """
    recipe = find_recipe(store, id, base, tracking)
    _require_weights(store, recipe)
    target = target_of(store, recipe, output)
    write_model(store, recipe, target, progress)
    return target


def target_of(store: Store, recipe: Recipe, output: Path | str | None) -> Path:
    """Where the folder of a model goes: `materialized/` below the store if no output is named."""
    return Path(output) if output is not None else store.root / "materialized" / recipe.name


def _require_weights(store: Store, recipe: Recipe) -> None:
    tuned = record_of(store, "tuned", recipe.evaluation.inputs["tuned"], recipe.evaluation.slug)
    if tuned.released:
        raise UserError(
            f"the weights of its tuned model {tuned.id[:FOLDER_DIGITS]} were deleted (runtime.keep: recipe)",
            place=recipe.evaluation.slug,
            advice=f"`{command('sftlab', 'materialize', recipe.evaluation.id[:FOLDER_DIGITS])}` trains it again.",
        )


def find_recipe(
    store: Store, id: str, base: Path | None = None, tracking: TrackingSettings | None = None
) -> Recipe:
    """What the model of an evaluation is made of. Raises UserError as `materialize` does."""
    record = _evaluation(store, _digits(store, id, tracking))
    if "tuned" not in record.inputs:
        raise UserError(
            (
                "is the evaluation of the base model itself, "
                f"{_base_folder(store, record.inputs['model'], base)}"
            ),
            place=record.id[:FOLDER_DIGITS],
            advice="there is nothing to make.",
        )
    restore: dict[str, Any] = dict(record.spec.get("restore") or {})
    percent = float(restore.pop("percent", 0.0))
    origin = f"strategy of {record.slug}"
    spec = validated(RestoreSpec, restore | {"percents": (percent,)}, origin)
    try:
        spec = with_method(spec)
    except UserError as error:
        raise within(origin, error) from error
    _require_method(record, spec)
    tuned = _tuned_folder(store, record)
    return Recipe(record, _base_folder(store, record.inputs["model"], base), tuned, spec, percent)


def write_model(
    store: Store, recipe: Recipe, target: Path, progress: Callable[[int, int], None] | None = None
) -> None:
    """Write a recipe's model to `target`, which appears when it is complete. Raises UserError if it exists."""
    edit = edit_for(recipe.restore, recipe.percent, cuts_of(store, recipe))
    restoration.write_model(recipe.base, recipe.tuned, edit, target, progress)


def _digits(store: Store, id: str, tracking: TrackingSettings | None) -> str:
    """The id's digits, lower case; MLflow is asked for its own addresses."""
    if id.startswith(("models:/", "m-")):
        id = artifact_of(id, tracking or TrackingSettings(), store.root)
    digits = id.strip().lower().rpartition("-")[2]  # also a result's whole folder name
    if not re.fullmatch(rf"[0-9a-f]{{{FEWEST_DIGITS},64}}", digits):
        raise UserError(
            "is no id",
            place=id,
            expected=(
                f"at least {FEWEST_DIGITS} of its digits (0-9, a-f), as the report shows them, or a "
                "model's address in MLflow, as models:/NAME@champion"
            ),
        )
    return digits


def _evaluation(store: Store, digits: str) -> Record:
    found = store.records("evaluation", digits)
    if len(found) > 1:
        shown = "\n".join(f"  {record.id[:24]}  {record.slug}" for record in found[:10])
        raise UserError(
            f"begins the ids of {len(found)} evaluations", place=digits, advice=f"give more digits.\n{shown}"
        )
    if found:
        return _whole(store, found[0])
    for stage in store.stages():
        if other := store.records(stage, digits):
            raise UserError(
                f"is a result of the stage {stage} ({other[0].slug})",
                place=digits,
                expected="the id of an evaluated model",
            )
    raise UserError(
        f"{store} holds no evaluation of this id",
        place=digits,
        advice="take it from the report or from MLflow, and name the store by --store.",
    )


def _whole(store: Store, record: Record) -> Record:
    """The record, its files checked. Raises UserError where one is missing or of another size."""
    damage = store.damage(record.step)
    if damage is not None:
        raise Damaged(store.path(record.step), damage)
    return record


def _require_method(evaluation: Record, restore: RestoreSpec) -> None:
    """Raises UserError where a custom strategy's code is another than that which made the evaluated model.

    Evaluations from before code was recorded name none, and are not checked.
    """
    made_by = evaluation.inputs.get("method")
    if made_by is not None and made_by != (actual := source_of(str(restore.method))):
        raise UserError(
            f"the source of strategy {restore.method} has changed since the model was evaluated",
            place=evaluation.slug,
            value=str(actual)[:FOLDER_DIGITS],
            expected=f"a file that hashes to {made_by[:FOLDER_DIGITS]}, found {str(actual)[:FOLDER_DIGITS]}",
            advice="bring back the old file.",
        )


def _tuned_folder(store: Store, evaluation: Record) -> Path:
    return _folder(store, record_of(store, "tuned", evaluation.inputs["tuned"], evaluation.slug)) / "model"


def record_of(store: Store, stage: str, id: str, place: str) -> Record:
    """The whole result of this id, which `place` is made of. Raises UserError where it is not there."""
    found = store.records(stage, id)
    if not found:
        name = "tuned model" if stage == "tuned" else stage
        raise UserError(
            f"its {name} {id[:FOLDER_DIGITS]} is no longer in {store}",
            place=place,
            advice="run its study or sweep again, which builds what is missing.",
        )
    return _whole(store, found[0])


def _folder(store: Store, record: Record) -> Path:
    return pull(store.path(record.step))


def _base_folder(store: Store, model_id: str, given: Path | None) -> Path:
    """The pocket model in the store, or the folder of this content hash: the given one, or where it was seen."""
    if found := store.records("model", model_id):
        return _folder(store, _whole(store, found[0])) / "model"
    if given is not None:
        actual = model_hash(given, store.root)
        if actual.startswith(MISSING):
            raise UserError(
                "holds no model", place=f"--base {given}", expected="config.json, safetensors and tokenizer"
            )
        if actual != model_id:
            raise UserError(
                f"is another model, whose files hash to {actual[:FOLDER_DIGITS]}",
                place=f"--base {given}",
                value=actual[:FOLDER_DIGITS],
                expected=model_id[:FOLDER_DIGITS],
            )
        return given
    folder = folder_of(model_id, store.root)
    if folder is None:
        raise UserError(
            f"the base model {model_id[:FOLDER_DIGITS]} is not where it was",
            value=model_id,
            advice="give its folder by --base.",
        )
    return folder


def cuts_of(store: Store, recipe: Recipe) -> Mapping[str, Cut]:
    """The cut of the recipe's percentage: as the change stage found it, else found again."""
    if not recipe.percent or not _uses_cut(recipe.restore):
        return {}
    label = percent_label(recipe.percent)
    ranking = _ranking(recipe.restore.model_dump())
    id = recipe.evaluation.inputs["tuned"]
    slug = record_of(
        store, "tuned", id, recipe.evaluation.slug
    ).slug  # a change has the name of its model's cell
    for record in store.records("change", slug=slug):
        if record.inputs.get("tuned") != id:
            continue
        if _ranking(record.spec) == ranking:
            cuts = read_profile(_folder(store, record) / CHANGE_FILE).cuts
            if label in cuts:
                return cuts
    return profile(recipe.base, recipe.tuned, [label], **recipe.restore.selection).cuts


def _uses_cut(restore: RestoreSpec) -> bool:
    return restore.method is None or get_edit_strategy(restore.method, restore.parameters).uses_cut


def _ranking(restore: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in restore.items() if key not in _LADDER and value is not None}
