"""Stage 9: the recommended restored model, written out as a folder."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from sftlab.files import write_text
from sftlab.strategies import edit_for
from sftlab.studies.knowledge.build import KnowledgeBuild
from sftlab.studies.knowledge.results.tables import ChoiceRow, StudyResults
from sftlab.studies.knowledge.stages.change import read_change
from sftlab.studies.knowledge.stages.results import read_results
from sftlab.weights.cut import percent_label
from sftlab.weights.restore import write_restored


def build_best(build: KnowledgeBuild) -> None:
    """Write the model that the dev split recommends, with the figures that speak for it."""
    step, row = build.plan.best, recommended(read_results(build))
    cell = next(cell for cell in build.plan.cells if cell.name == row.cell)
    edit = edit_for(build.plan.spec.restore, row.percent, read_change(build, cell).cuts)
    edits = {percent_label(row.percent): edit}
    shutil.rmtree(best_folder(build), ignore_errors=True)
    write_restored(build.model_folder, build.read(cell.tuned, "model"), edits, build.path(step))
    write_text(build.path(step) / "choice.json", json.dumps(row.__dict__, indent=1) + "\n")
    build.commit(step)


def best_folder(build: KnowledgeBuild) -> Path:
    """Hugging Face folder of the recommended model."""
    return build.path(build.plan.best) / f"restored-{percent_label(recommended(read_results(build)).percent)}"


def recommended(results: StudyResults) -> ChoiceRow:
    return next(row for row in results.choice if row.scope == "recommended")
