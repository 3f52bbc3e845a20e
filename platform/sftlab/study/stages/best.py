"""Stage 9: the recommended restored model, written out as a folder."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from sftlab.analysis.results import ChoiceRow, StudyResults
from sftlab.store.artifact import write_text
from sftlab.study.build import Build
from sftlab.study.stages.change import read_change
from sftlab.study.stages.results import read_results
from sftlab.weights.restore import write_restored


def build_best(build: Build) -> None:
    """Write the model that the dev split recommends, with the figures that speak for it."""
    step, row = build.plan.best, recommended(read_results(build))
    cell = next(cell for cell in build.plan.cells if cell.name == row.cell)
    label = f"{row.percent:g}"
    cuts = {label: read_change(build, cell).cuts[label]}
    shutil.rmtree(best_folder(build), ignore_errors=True)
    write_restored(build.model_folder, build.path(cell.tuned) / "model", cuts, build.path(step))
    write_text(build.path(step) / "choice.json", json.dumps(row.__dict__, indent=1) + "\n")
    build.commit(step)


def best_folder(build: Build) -> Path:
    """Hugging Face folder of the recommended model."""
    return build.path(build.plan.best) / f"restored-{recommended(read_results(build)).percent:g}"


def recommended(results: StudyResults) -> ChoiceRow:
    return next(row for row in results.choice if row.scope == "recommended")
