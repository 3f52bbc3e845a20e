"""What every stage of this study is called with."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from sftlab.execution.build import Build
from sftlab.store.record import Damaged
from sftlab.studies.knowledge.plan import Cell, Plan

MODEL = "model"


@dataclass(frozen=True)
class KnowledgeBuild(Build):
    """A study of knowledge that is being built."""

    plan: Plan

    def each(self, title: str, cells: Sequence[Cell], work: Callable[[KnowledgeBuild, Cell], None]) -> None:
        """Do the work of cells one after another, with a bar that names the cell in work."""
        with self.progress.bar(title) as bar:
            for done, cell in enumerate(cells):
                bar.update(done, len(cells), cell.name)
                work(self, cell)
            bar.update(len(cells), len(cells))

    def tuned_model(self, cell: Cell) -> Path:
        """The folder of a cell's tuned model. Raises Damaged where it was deleted, so that it is built again."""
        record, folder = self.store.find(cell.tuned), self.path(cell.tuned)
        if record is not None and record.released:
            raise Damaged(folder, "deleted to save space, as runtime.keep: recipe says")
        return folder / MODEL

    @property
    def model_folder(self) -> Path:
        """The base model: pre-trained here, or brought by the study."""
        if self.plan.model is not None:
            return self.path(self.plan.model) / "model"
        assert self.plan.spec.model is not None
        return Path(self.plan.spec.model.path).resolve()  # workers have other working folders
