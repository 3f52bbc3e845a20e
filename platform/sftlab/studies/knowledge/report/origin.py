"""What the store knows in addition to the tables of a report: which model has which id, and what computed them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from sftlab.reporting.table import Entry, Row, Table, key_values
from sftlab.reporting.text import restored
from sftlab.shell import command

DIGITS = 12  # of an id, as in the names of the store's folders
UNSAID = ("host",)  # a report is handed on, so it names no machine
Model = tuple[str, str, float]  # variant ("" in a study), cell, percentage


@dataclass(frozen=True)
class Origin:
    """models: id of every evaluated model. provenance: as the record of the results holds it."""

    models: Mapping[Model, str] = field(default_factory=dict)
    provenance: Mapping[str, str] = field(default_factory=dict)

    def how_to_get(self, model: Model) -> str:
        """How to have a model as a folder; '' for one that the store does not name."""
        found = self.models.get(model)
        if not found:
            return ""
        return f"To have this model as a folder: {command('sftlab', 'materialize', found[:DIGITS])}"

    def model_table(self) -> Table | None:
        """Ids of the models of every trial, by percentage."""
        trials: dict[tuple[str, str], list[str]] = {}
        for (variant, cell, percent), found in self.models.items():
            trials.setdefault((variant, cell), []).append(f"{restored(percent)}: {found[:DIGITS]}")
        rows = [
            Row(" ".join(filter(None, trial)), [Entry(lines[0], below=lines[1:])])
            for trial, lines in trials.items()
        ]
        if not rows:
            return None
        caption = "Ids of the models, for sftlab materialize ID"
        return Table(
            caption, "model", ["id by percentage"], rows, folded=f"Ids of all {len(self.models):,} models"
        )

    def provenance_table(self) -> Table | None:
        """When these results were computed, on how many cores, with which versions."""
        named = {"date" if key == "time" else key: value for key, value in self.provenance.items()}
        shown = [(key, value) for key, value in named.items() if key not in UNSAID]
        return key_values("Provenance of these tables", shown)
