"""Stage 7: what statements on a change are compared with: shuffled updates, and how much a restoration undoes."""

from __future__ import annotations

import json
from dataclasses import asdict

from sftlab.files import write_text
from sftlab.store.mirror import pull
from sftlab.studies.knowledge.build import KnowledgeBuild
from sftlab.studies.knowledge.plan import Cell
from sftlab.studies.knowledge.stages.change import read_change
from sftlab.weights.change_profile import controls_for
from sftlab.weights.controls import Controls, read_controls_file

FILE = "controls.json"
SEED = 0  # of the shuffle


def build_controls(build: KnowledgeBuild) -> None:
    """Measure the controls of every tuned model that has none yet."""
    cells = [cell for cell in build.plan.cells if build.missing(cell.controls)]
    build.each("controls of the changes", cells, build_cell_controls)


def build_cell_controls(build: KnowledgeBuild, cell: Cell) -> None:
    """Measure the controls of one tuned model and commit them."""
    found = controls_for(build.model_folder, pull(build.tuned_model(cell)), read_change(build, cell), SEED)
    write_text(build.path(cell.controls) / FILE, json.dumps(asdict(found), indent=1) + "\n")
    build.commit(cell.controls)


def read_controls(build: KnowledgeBuild, cell: Cell) -> Controls:
    """The committed controls of a cell."""
    return read_controls_file(build.read(cell.controls, FILE))
