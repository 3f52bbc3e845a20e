"""Stage 6: how far each weight moved, and where every step of the restoration ladder ends."""

from __future__ import annotations

from sftlab.store.mirror import pull
from sftlab.studies.knowledge.build import KnowledgeBuild
from sftlab.studies.knowledge.plan import Cell
from sftlab.weights.change_profile import ChangeProfile, profile, read_profile, write_profile
from sftlab.weights.cut import percent_label

FILE = "change.json"


def build_changes(build: KnowledgeBuild) -> None:
    """Profile every tuned model that has none yet, probes included."""
    plan = build.plan
    cells = [cell for cell in (*plan.probes, *plan.cells) if build.missing(cell.change)]
    build.each("weight changes", cells, build_change)


def build_change(build: KnowledgeBuild, cell: Cell) -> None:
    """Profile one tuned model and commit the profile."""
    restore = cell.restore
    found = profile(
        build.model_folder,
        pull(build.tuned_model(cell)),
        [percent_label(percent) for percent in restore.percents],
        **restore.selection,
    )
    write_profile(build.path(cell.change) / FILE, found)
    build.commit(cell.change)


def read_change(build: KnowledgeBuild, cell: Cell) -> ChangeProfile:
    """The committed profile of a cell."""
    return read_profile(build.read(cell.change, FILE))
