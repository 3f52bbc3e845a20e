"""A finished study or sweep: what its results, its report, its best model and its runs in MLflow are made from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from sftlab.store.record import Step
from sftlab.studies.knowledge.build import KnowledgeBuild
from sftlab.studies.knowledge.plan import Cell
from sftlab.studies.knowledge.report.buckets import RESTORE
from sftlab.studies.knowledge.results.choice import DEV
from sftlab.studies.knowledge.results.tables import STUDY, Recommended


class FinishedCell(NamedTuple):
    """A cell whose models are evaluated, its build, and the variant that it belongs to."""

    variant: str
    strategy: str
    settings: Mapping[str, Any]
    build: KnowledgeBuild
    cell: Cell


@dataclass(frozen=True)
class Finished:
    """A study or a sweep, as far as its cells are finished.

    spec: what was asked for, as JSON. metric: what makes the choices. base: the build of what all cells share.
    cells: a search may hold one twice, with other percentages. results, best, report: the steps that rest on them.
    """

    kind: str
    name: str
    spec: Mapping[str, Any]
    metric: str
    base: KnowledgeBuild
    cells: Sequence[FinishedCell]
    results: Step
    best: Step
    report: Step

    def by_variant(self) -> dict[str, list[FinishedCell]]:
        """The cells of each variant, in their order."""
        found: dict[str, list[FinishedCell]] = {}
        for cell in self.cells:
            found.setdefault(cell.variant, []).append(cell)
        return found

    def model(self, best: Recommended) -> FinishedCell:
        """The cell of the recommended model."""
        return next(
            found
            for found in self.cells
            if (found.variant, found.cell.name) == best.model[:2] and best.percent in found.cell.evaluations
        )


def finished_study(build: KnowledgeBuild) -> Finished:
    """A study is one variant; its strategy is what edits the tuned models."""
    plan = build.plan
    strategy = plan.spec.restore.method or RESTORE
    return Finished(
        kind=STUDY,
        name=plan.spec.name,
        spec=plan.spec.model_dump(mode="json", exclude_none=True),
        metric=plan.spec.metric or DEV,
        base=build,
        cells=[FinishedCell(strategy, strategy, {}, build, cell) for cell in plan.cells],
        results=plan.results,
        best=plan.best,
        report=plan.report,
    )
