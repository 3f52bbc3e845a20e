"""Commands for finished results: materialize, track and verify."""

from __future__ import annotations

import json
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sftlab.cli.common import (
    JsonFlag,
    Overrides,
    Place,
    RuntimeFile,
    Shown,
    StoreFolder,
    bar_once_begun,
    open_store,
    runtime_of,
    show,
    shown_progress,
)
from sftlab.cli.options import MODEL, expanded
from sftlab.cli.study import open_study
from sftlab.cli.survey import open_survey, track_survey_of
from sftlab.cli.sweep import conclude, open_sweep
from sftlab.errors import UserError
from sftlab.files import new_output

if TYPE_CHECKING:
    from sftlab.execution.runtime import Runtime
    from sftlab.store.artifact import Store
    from sftlab.studies.knowledge.materialize import Recipe
    from sftlab.studies.survey.build import SurveyBuild


@dataclass(frozen=True)
class Named:
    """A model that the store keeps as a recipe."""

    id: Annotated[
        str,
        typer.Argument(
            help="Id (8 digits do) as MLflow and STORE/evaluation have it, or models:/SWEEP@champion.",
            metavar="ID",
        ),
    ]
    base: Annotated[
        Path | None, typer.Option(help="Folder of the base model, where the store does not know it."), MODEL
    ] = None
    plugins: Annotated[
        list[str] | None, typer.Option("--plugin", help="Module of a custom strategy that made the model.")
    ] = None


@dataclass(frozen=True)
class Model(Named):
    """A model, and where its folder goes."""

    survey: Annotated[
        Path | None, typer.Option(help="Survey file (YAML): ID is the name of a model of this survey.")
    ] = None
    output: Annotated[Path | None, typer.Option(help="New folder; below the store if unset.")] = None


@expanded
def materialize(
    model: Model,
    runtime: RuntimeFile = None,
    store: StoreFolder = None,
    overrides: Overrides = None,
    as_json: JsonFlag = False,
) -> None:
    """Write a model's folder from its recipe.

    A model of a study or sweep is named by its id; with --survey, by its name in the survey's report.
    """
    show(as_json, lambda: materialize_model(model, runtime, store, overrides or []))


@expanded
def recipe(
    model: Named,
    runtime: RuntimeFile = None,
    store: StoreFolder = None,
    overrides: Overrides = None,
    as_json: JsonFlag = False,
) -> None:
    """Print what a model is made of, as JSON.

    Base and tuned model by content, and the weights that were restored.
    """
    show(as_json, lambda: recipe_of(model, runtime, store, overrides or []))


@dataclass(frozen=True)
class Target:
    """Where a model goes on a hub."""

    name: Annotated[
        str, typer.Argument(help="Model on the hub; made if it is not there.", metavar="ORG/NAME")
    ]
    public: Annotated[bool, typer.Option("--public", help="A new model is for all to see.")] = False


@expanded
def push(
    model: Named,
    target: Target,
    runtime: RuntimeFile = None,
    store: StoreFolder = None,
    overrides: Overrides = None,
    as_json: JsonFlag = False,
) -> None:
    """Upload a model to a hub, with its card and recipe.

    HF_TOKEN must be one that may write there. A new model is private.
    """
    show(as_json, lambda: push_model(model, target, runtime_of(runtime, store, overrides or [])))


def track(
    file: Annotated[Path, typer.Argument(help="Study, sweep or survey file (YAML).", metavar="FILE.yaml")],
    runtime: RuntimeFile = None,
    store: StoreFolder = None,
    overrides: Overrides = None,
    as_json: JsonFlag = False,
) -> None:
    """Log a finished study, sweep or survey to MLflow.

    Nothing is computed, and nothing is logged twice.
    """
    show(as_json, lambda: track_finished(file, runtime, store, overrides or []))


def verify(
    runtime: RuntimeFile = None,
    store: StoreFolder = None,
    overrides: Overrides = None,
    as_json: JsonFlag = False,
) -> None:
    """Read every result and compare its hash.

    Damaged results are quarantined, so that the next run builds them again. Reads the whole store.
    """
    show(as_json, lambda: verify_store(runtime, store, overrides or []))


def materialize_model(
    model: Model, runtime_file: Path | None, store: Place, overrides: Sequence[str]
) -> Shown:
    """Write the folder of an evaluated model that is kept as a recipe; plugins may be in the working folder."""
    if model.survey is not None:
        return materialize_of_survey(
            model, model.survey, open_survey(model.survey, runtime_file, store, overrides)
        )
    from sftlab.studies.knowledge.materialize import target_of, write_model
    from sftlab.studies.knowledge.rebuild import with_weights
    from sftlab.weights.restoration import require_new

    runtime = runtime_of(runtime_file, store, overrides)
    opened, recipe = _found(model, runtime)
    folder = target_of(opened, recipe, model.output)
    with (
        new_output(folder, require_new) as made,
        with_weights(opened, recipe, runtime, shown_progress().say) as whole,
        bar_once_begun("writing") as update,
    ):
        write_model(opened, whole, made, update)
    return Shown({"path": str(folder)}, str(folder))


def materialize_of_survey(model: Model, survey: Path, build: SurveyBuild) -> Shown:
    """Write the folder of a model that a survey names."""
    from sftlab.studies.survey.materialize import materialize

    if model.base is not None or model.plugins:
        raise UserError(
            "the survey says what --base and --plugin say", place=survey, advice="leave these out."
        )
    with bar_once_begun("writing") as update:
        folder = materialize(build, model.id, model.output, update)
    return Shown({"path": str(folder)}, str(folder))


def _found(model: Named, runtime: Runtime) -> tuple[Store, Recipe]:
    """A store and the recipe of one of its models; plugins may be in the working folder."""
    from sftlab.strategies import load_plugins
    from sftlab.studies.knowledge.materialize import find_recipe

    opened = open_store(runtime)
    load_plugins(model.plugins or [], Path.cwd())
    return opened, find_recipe(opened, model.id, model.base, runtime.tracking)


def recipe_of(model: Named, runtime_file: Path | None, store: Place, overrides: Sequence[str]) -> Shown:
    """What an evaluated model is made of."""
    from sftlab.studies.knowledge.recipe import recipe_json

    made = recipe_json(*_found(model, runtime_of(runtime_file, store, overrides)))
    return Shown(made, json.dumps(made, indent=1, ensure_ascii=False))


def push_model(model: Named, target: Target, runtime: Runtime) -> Shown:
    """Write an evaluated model with its card and recipe to a temporary folder, and upload that."""
    from tempfile import TemporaryDirectory

    from sftlab.store.hub import require_name, upload
    from sftlab.studies.knowledge.materialize import write_model
    from sftlab.studies.knowledge.rebuild import with_weights
    from sftlab.studies.knowledge.recipe import write_beside

    require_name(target.name)
    opened, found = _found(model, runtime)
    with TemporaryDirectory(dir=opened.root, prefix=".push-") as place:
        folder = Path(place) / found.name
        with with_weights(opened, found, runtime, shown_progress().say) as whole:
            with bar_once_begun("writing") as update:
                write_model(opened, whole, folder, update)
        write_beside(opened, found, folder)
        message = f"{found.evaluation.slug}: sftlab {found.evaluation.id[:12]}"
        address, commit = upload(folder, target.name, not target.public, message)
    return Shown({"url": address, "commit": commit}, f"{address}: commit {commit}")


def track_finished(path: Path, runtime_file: Path | None, store: Place, overrides: Sequence[str]) -> Shown:
    """Log a finished study, sweep or survey to MLflow. Raises UserError where it is not finished."""
    from sftlab.studies.load import is_survey, is_sweep

    if is_survey(path):
        survey = open_survey(path, runtime_file, store, overrides)
        logged = track_survey_of(survey, path)
        return Shown({"survey": survey.plan.name, "store": str(survey.store), "mlflow": logged})
    if is_sweep(path):
        from sftlab.studies.knowledge.sweep.sweep import finished_sweep

        sweep = open_sweep(path, runtime_file, store, overrides)
        return conclude(sweep, finished_sweep(sweep), path)
    from sftlab.studies.knowledge.build import KnowledgeBuild
    from sftlab.studies.knowledge.stages.track import track_results

    plan, runtime, opened = open_study(path, runtime_file, store, overrides)
    where = track_results(KnowledgeBuild(plan, opened, runtime, shown_progress()))
    return Shown({"study": plan.name, "store": str(opened), "mlflow": where}, f"MLflow: {where}")


def verify_store(runtime_file: Path | None, store: Place, overrides: Sequence[str]) -> Shown:
    """Read all results of a store, and quarantine the damaged ones. Raises UserError where there were some."""
    opened = open_store(runtime_of(runtime_file, store, overrides))
    return Shown({"store": str(opened), "sound": verify_results(opened)})


def verify_results(store: Store) -> int:
    """Read all results, quarantine the damaged ones, and print what was found; returns the number of sound ones.

    Raises UserError where some were damaged, where another run builds in the store, and where there is none.
    """
    if not store.stages():  # asked before a lock is made, with which a folder would come to be
        raise UserError("no store is there", place=store, advice="correct --store (runtime.store).")
    lines: list[str] = []

    def report(line: str) -> None:
        lines.append(line)
        print(line, flush=True)

    reads_only = store.backend.reads_only
    with nullcontext() if reads_only else store.exclusive():
        sound = store.verify(report, keep=reads_only)
    print(f"{store}: {sound:,} results are sound", flush=True)
    if lines:
        found = f"{len(lines):,} results were damaged"
        if reads_only:
            raise UserError(found, advice="this user may not write in the store and cannot quarantine them.")
        raise UserError(f"{found} and are quarantined", advice="the next run builds them again.")
    return sound
