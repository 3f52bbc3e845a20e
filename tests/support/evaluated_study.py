"""A study of one cell whose models are committed as the stages commit them, but for answers; no engine, no training."""

from __future__ import annotations

from pathlib import Path

from sftlab.execution.progress import SilentProgress
from sftlab.execution.runtime import Runtime
from sftlab.files import write_text
from sftlab.store.artifact import Store
from sftlab.strategies import get_strategy
from sftlab.studies.knowledge.build import KnowledgeBuild
from sftlab.studies.knowledge.plan import Cell, Plan
from sftlab.studies.knowledge.sources import resolve
from sftlab.studies.knowledge.stages.change import build_change
from sftlab.studies.load import load_study
from tests.support.weights_models import save_model, save_tuned

PERCENTS = "restore.percents=[0, 10, 40]"


def build_of(tmp_path: Path, *overrides: str, strategy: str | None = None) -> KnowledgeBuild:
    """A study of one cell, with a pocket model, or a model that the user brings."""
    tmp_path.mkdir(exist_ok=True)
    (tmp_path / "study.yaml").write_text("name: t\n")
    if not overrides:
        overrides = ("pocket={}",)
    grid = "training_sets={buckets: [0], sizes: [4], seeds: [0]}"
    spec = load_study(tmp_path / "study.yaml", [*overrides, grid, PERCENTS])
    if strategy is not None:
        spec = spec.with_treatment(get_strategy(strategy).apply(spec.treatment))
    store = Store(tmp_path / "store")
    return KnowledgeBuild(Plan(spec, resolve(spec, store.root)), store, Runtime(), SilentProgress())


def finish(build: KnowledgeBuild) -> Cell:
    """Commit a base model, a tuned model, its change, and evaluations without answers."""
    (cell,) = build.plan.cells
    if build.plan.model is not None and build.missing(build.plan.model):
        save_model(build.model_folder, "llama-tied", seed=0)
        build.commit(build.plan.model)
    if build.missing(cell.tuned):
        save_tuned(build.path(cell.tuned) / "model", build.model_folder)
        build.commit(cell.tuned)
    if build.missing(cell.change):
        build_change(build, cell)
    for step in (build.plan.base_evaluation, *cell.evaluations.values()):
        if build.missing(step):
            write_text(build.path(step) / "answers.parquet", "")
            build.commit(step)
    return cell
