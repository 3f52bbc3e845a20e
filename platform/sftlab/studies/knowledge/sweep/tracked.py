"""What a sweep hands to MLflow: fact tables, models and the model card."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from pathlib import Path

from sftlab.facts.table import SPLITS
from sftlab.store.mirror import pull_all
from sftlab.studies.knowledge.results.sweep_tables import SweepResults
from sftlab.studies.knowledge.stages.results import model_name
from sftlab.studies.knowledge.stages.training_sets import training_file
from sftlab.studies.knowledge.sweep.steps import SweepSteps
from sftlab.studies.knowledge.sweep.sweep import Sweep
from sftlab.studies.knowledge.tracking.card import BaseModel, licence_of, model_card
from sftlab.studies.knowledge.tracking.sweep import recommended_model, sweep_key
from sftlab.tracking import TrackedModel, TrackedTable, table_of


def fact_tables(sweep: Sweep) -> list[TrackedTable]:
    """The splits of the facts, which all models were measured on."""
    facts = sweep.base.read(sweep.base.plan.facts)
    return [table_of(facts / f"{split}.parquet") for split in SPLITS]


def key_of(sweep: Sweep) -> str:
    """What the sweep's parent run is found again by: it stays when an axis gets more values."""
    plan = sweep.base.plan
    study = sweep.study.model_dump(
        mode="json", exclude={"name", "training_sets", "plugins"}, exclude_none=True
    )
    study["restore"].pop("percents")
    return sweep_key(sweep.spec.name, plan.model_id, plan.facts.id, study)


def tracked_models(
    steps: SweepSteps, results: SweepResults, best: Path | None
) -> dict[str, list[TrackedModel]]:
    """Every model by variant: the tuned ones with their files, the restored ones as recipes, `best` with both."""
    found: dict[str, list[TrackedModel]] = {}
    for variant, model in _models(steps, results, best):
        found.setdefault(variant, []).append(model)
    return found


def sweep_card(steps: SweepSteps, results: SweepResults) -> str:
    """Model card of the recommended model; empty where nothing is recommended."""
    best = recommended_model(results)
    if best is None:
        return ""
    model = next(
        model
        for variant, model in _models(steps, results, None)
        if (variant, model.cell, model.percent) == (best.variant, best.cell, best.percent)
    )
    return model_card(results, best, model, base_model(steps.sweep))


def base_model(sweep: Sweep) -> BaseModel:
    """What a model card says of the base model of a sweep."""
    build = sweep.base
    if build.plan.model is not None:
        origin = "The base model is a small Llama that sftlab pre-trained from scratch for this study."
        return BaseModel(model_name(build), build.plan.model_id, origin)
    licence, files = licence_of(build.model_folder)
    spec = sweep.study.model
    revision = f" (revision {spec.revision})" if spec is not None and spec.revision else ""
    origin = f"The base model is {model_name(build)}{revision}, brought by the user of sftlab."
    return BaseModel(model_name(build), build.plan.model_id, origin, licence, files)


def _models(
    steps: SweepSteps, results: SweepResults, best: Path | None
) -> Iterator[tuple[str, TrackedModel]]:
    """Variant and model, each once: a cell may be there twice, with other percentages."""
    chosen = recommended_model(results)
    seen: set[tuple[str, str, float]] = set()
    train_set = cache(lambda path, name: table_of(path, name, "training"))
    pull_all({Path(training_file(build, cell)) for _, build, cell in steps.found})
    for trial, build, cell in steps.found:
        for percent, step in cell.evaluations.items():
            at = (trial.variant, cell.name, percent)
            if at in seen:
                continue
            seen.add(at)
            path = build.path(cell.tuned) / "model" if not percent else None
            if chosen is not None and at == (chosen.variant, chosen.cell, chosen.percent):
                path = best
            record = build.store.find(step)
            assert record is not None
            table: TrackedTable = train_set(Path(training_file(build, cell)), cell.name)
            yield (
                trial.variant,
                TrackedModel(step.id, cell.name, percent, path, table, record.provenance),
            )
