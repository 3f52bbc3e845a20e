"""Stage 11: the report page."""

from __future__ import annotations

from pathlib import Path

from sftlab.files import write_text
from sftlab.store.artifact import Store
from sftlab.store.mirror import pull
from sftlab.studies.knowledge.build import KnowledgeBuild
from sftlab.studies.knowledge.plan import Plan
from sftlab.studies.knowledge.report.origin import Origin
from sftlab.studies.knowledge.results.tables import Results
from sftlab.studies.knowledge.stages.finished import Finished, finished_study
from sftlab.studies.knowledge.stages.results import read_results

FILE = "report.html"


def build_report(build: KnowledgeBuild) -> None:
    """Render the results as one self-contained page."""
    write_report(finished_study(build), read_results(build))
    build.commit(build.plan.report)


def write_report(finished: Finished, results: Results) -> None:
    from sftlab.studies.knowledge.report.page import render

    file = finished.base.path(finished.report) / FILE
    write_text(file, render(results, origin_of(finished)))


def origin_of(finished: Finished) -> Origin:
    """Ids of all models, and what computed the tables."""
    record = finished.base.store.find(finished.results)
    ids = {
        (found.variant, found.cell.name, percent): step.id
        for found in finished.cells
        for percent, step in found.cell.evaluations.items()
    }
    return Origin(ids, record.provenance if record is not None else {})


def report_file(plan: Plan, store: Store) -> Path:
    """The committed page, on this machine."""
    return pull(store.path(plan.report) / FILE)
