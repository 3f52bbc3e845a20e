"""The report: one self-contained HTML page from a study's results."""

from __future__ import annotations

from collections.abc import Mapping

from sftlab.reporting.page import csv_address, fill_page
from sftlab.studies.knowledge.report import published
from sftlab.studies.knowledge.report.buckets import legends
from sftlab.studies.knowledge.report.findings import all_findings
from sftlab.studies.knowledge.report.lookup import View
from sftlab.studies.knowledge.report.origin import Origin
from sftlab.studies.knowledge.report.sections import sections
from sftlab.studies.knowledge.report.summary import summarise
from sftlab.studies.knowledge.results.tables import TABLES, StudyResults


def render(results: StudyResults, origin: Origin | None = None) -> str:
    """The page as HTML text. It refers to nothing outside itself; the same results give the same bytes.

    Every text from the results is escaped; figures are SVG made here. A table that the study left empty
    leaves its section with the words "Not measured in this study." `origin` adds ids and provenance.
    """
    view, origin = View(results), origin or Origin()
    findings = all_findings(view)
    return fill_page(
        legends(view.train_buckets),
        ["style.css"],
        results=results,
        summary=summarise(view, origin),
        findings=findings,
        sections=sections(view, findings, origin),
        downloads=csv_links(results),
        whole="study",
        paper=published.PAPER,
        paper_model=published.PAPER_MODEL,
        paper_after="",
    )


def csv_links(results: StudyResults) -> Mapping[str, tuple[str, int]]:
    """For each result table with rows: a data address of it as CSV in full precision, and its row count."""
    links = {}
    for name in TABLES:
        rows = results.table(name).to_pylist()
        if rows:
            links[name] = (csv_address(rows), len(rows))
    return links
