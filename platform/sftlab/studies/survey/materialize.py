"""A model of a survey as a folder that others load: a run after one of its epochs, or an edit of such a model."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from sftlab.config.documents import nearest
from sftlab.errors import UserError
from sftlab.studies.survey.build import SurveyBuild
from sftlab.studies.survey.models import MODEL, Model
from sftlab.studies.survey.stages.changes import edit_of
from sftlab.weights.restoration import write_model

SHOWN = 5  # names of models in an error


def materialize(
    build: SurveyBuild,
    name: str,
    output: Path | str | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Path:
    """Write the folder of a survey's model: full weights, also where the store keeps a delta or a recipe.

    Args:
        build: the survey, with its store and runtime.
        name: of the model, as the page and the tables of results have it.
        output: the new folder; `materialized/` below the store if unset.
        progress: hears bytes done and of all.

    Returns the folder. Raises UserError for a name that the survey does not have, for a base model, for a model that
    is not built yet, and for an output that exists.
    """
    model = named(build, name)
    assert model.tuned is not None
    target = Path(output) if output is not None else build.store.root / "materialized" / model.name
    target.parent.mkdir(parents=True, exist_ok=True)
    tuned = build.read(model.tuned, MODEL)
    write_model(build.base_folder(model.base), tuned, edit_of(build, model), target, progress)
    return target


def named(build: SurveyBuild, name: str) -> Model:
    """The model of a name, with all that it is made of in the store. Raises UserError as `materialize` does."""
    models = {model.name: model for model in build.plan.scored}
    model = models.get(name)
    where = f"survey {build.plan.name}"
    if model is None:
        near = nearest(name, models)
        hint = (
            f"did you mean {near}?" if near else f"{', '.join(list(models)[:SHOWN])}, ... are models of it."
        )
        raise UserError(f"has no model {name}", place=where, value=name, advice=hint)
    if model.tuned is None:
        folder = build.base_folder(model.base)
        raise UserError(
            f"{name} is a base model, which is a folder already",
            place=where,
            value=name,
            advice=f"it is {folder}.",
        )
    steps = [model.tuned, *([model.change] if model.change is not None else [])]
    if missing := build.missing(*steps):
        raise UserError(
            f"{name} is not built yet (missing: {', '.join(step.stage for step in missing)})",
            place=where,
            value=name,
            advice="run `sftlab survey` first.",
        )
    return model
