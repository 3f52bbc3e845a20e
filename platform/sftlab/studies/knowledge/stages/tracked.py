"""What a finished study or sweep hands to MLflow: fact tables, models and the model card."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from pathlib import Path

from sftlab.facts.table import SPLITS
from sftlab.store.mirror import pull_all
from sftlab.studies.knowledge.build import KnowledgeBuild
from sftlab.studies.knowledge.plan import Cell
from sftlab.studies.knowledge.results.tables import Results
from sftlab.studies.knowledge.stages.finished import Finished
from sftlab.studies.knowledge.stages.results import model_name
from sftlab.studies.knowledge.stages.training_sets import training_file
from sftlab.studies.knowledge.tracking.card import BaseModel, licence_of, model_card
from sftlab.studies.knowledge.tracking.runs import parent_key
from sftlab.tracking import TrackedModel, TrackedTable, table_of


def fact_tables(build: KnowledgeBuild) -> list[TrackedTable]:
    """The splits of the facts, which all models were measured on."""
    facts = build.read(build.plan.facts)
    return [table_of(facts / f"{split}.parquet") for split in SPLITS]


def key_of(finished: Finished) -> str:
    """What the parent run is found again by: it stays when an axis gets more values."""
    plan = finished.base.plan
    study = plan.spec.model_dump(mode="json", exclude={"name", "training_sets", "plugins"}, exclude_none=True)
    study["restore"].pop("percents")
    return parent_key(finished.name, plan.model_id, plan.facts.id, study)


def tracked_models(finished: Finished, results: Results, best: Path | None) -> dict[str, list[TrackedModel]]:
    """Every model by variant: the tuned ones with their files, the restored ones as recipes, `best` with both."""
    found: dict[str, list[TrackedModel]] = {}
    for variant, model in _models(finished, results, best):
        found.setdefault(variant, []).append(model)
    return found


def card_of(finished: Finished, results: Results) -> str:
    """Model card of the recommended model; empty where nothing is recommended."""
    best = results.recommended()
    if best is None:
        return ""
    model = next(
        model
        for variant, model in _models(finished, results, None)
        if (variant, model.cell, model.percent) == best.model
    )
    return model_card(results, best, model, base_model(finished.base))


def base_model(build: KnowledgeBuild) -> BaseModel:
    """What a model card says of the base model."""
    if build.plan.model is not None:
        origin = "The base model is a small Llama that sftlab pre-trained from scratch for this study."
        return BaseModel(model_name(build), build.plan.model_id, origin)
    licence, files = licence_of(build.model_folder)
    spec = build.plan.spec.model
    revision = f" (revision {spec.revision})" if spec is not None and spec.revision else ""
    origin = f"The base model is {model_name(build)}{revision}, brought by the user of sftlab."
    return BaseModel(model_name(build), build.plan.model_id, origin, licence, files)


def _models(finished: Finished, results: Results, best: Path | None) -> Iterator[tuple[str, TrackedModel]]:
    """Variant and model, each once: a cell may be there twice, with other percentages."""
    chosen = results.recommended()
    seen: set[tuple[str, str, float]] = set()
    train_set = cache(lambda path, name: table_of(path, name, "training"))
    pull_all({Path(training_file(found.build, found.cell)) for found in finished.cells})
    for variant, _, _, build, cell in finished.cells:
        for percent, step in cell.evaluations.items():
            at = (variant, cell.name, percent)
            if at in seen:
                continue
            seen.add(at)
            path = None if percent else _folder(build, cell)
            if chosen is not None and at == chosen.model:
                path = best
            record = build.store.find(step)
            assert record is not None
            table: TrackedTable = train_set(Path(training_file(build, cell)), cell.name)
            yield variant, TrackedModel(step.id, cell.name, percent, path, table, record.provenance)


def _folder(build: KnowledgeBuild, cell: Cell) -> Path | None:
    """The folder of a cell's tuned model; None where it was deleted and its recipe remains."""
    record = build.store.find(cell.tuned)
    return None if record is not None and record.released else build.tuned_model(cell)
