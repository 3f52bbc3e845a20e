"""Stage 10: the report page."""

from __future__ import annotations

from pathlib import Path

from sftlab.files import write_text
from sftlab.store.artifact import Store
from sftlab.store.mirror import pull
from sftlab.studies.knowledge.build import KnowledgeBuild
from sftlab.studies.knowledge.plan import Plan
from sftlab.studies.knowledge.report.origin import Origin
from sftlab.studies.knowledge.stages.results import read_results

FILE = "report.html"


def build_report(build: KnowledgeBuild) -> None:
    """Render the results as one self-contained page."""
    from sftlab.studies.knowledge.report.page import render

    plan, record = build.plan, build.store.find(build.plan.results)
    ids = {("", cell.name, p): step.id for cell in plan.cells for p, step in cell.evaluations.items()}
    origin = Origin(ids, record.provenance if record is not None else {})
    write_text(build.path(plan.report) / FILE, render(read_results(build), origin))
    build.commit(build.plan.report)


def report_file(plan: Plan, store: Store) -> Path:
    """The committed page, on this machine."""
    return pull(store.path(plan.report) / FILE)
