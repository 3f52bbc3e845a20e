"""The report of a sweep: one self-contained HTML page, the recommendation first, the settings last."""

from __future__ import annotations

from collections.abc import Mapping

from sftlab.reporting.page import csv_address, fill_page
from sftlab.studies.knowledge.report import published
from sftlab.studies.knowledge.report.buckets import legends
from sftlab.studies.knowledge.report.evidence import distribution_percent
from sftlab.studies.knowledge.report.findings import all_findings
from sftlab.studies.knowledge.report.lookup import TEST, View
from sftlab.studies.knowledge.report.origin import Origin
from sftlab.studies.knowledge.report.sweep.sections import sweep_sections
from sftlab.studies.knowledge.report.sweep.summary import sharper, summarise
from sftlab.studies.knowledge.report.sweep.view import SweepView
from sftlab.studies.knowledge.results.sweep_tables import SWEEP_TABLES, SweepResults
from sftlab.studies.knowledge.results.tables import DivergenceRow

# Tables of the studies that figures are drawn from: of all variants, and of the main one alone. The others stay in
# the store.
OF_ALL, OF_MAIN = ("cells",), ("concentration", "distribution", "mastery")


def render_sweep(results: SweepResults, origin: Origin | None = None) -> str:
    """The page as HTML text. It refers to nothing outside itself; the same results give the same bytes.

    Every text from the results is escaped; figures are SVG made here. What the sweep did not measure leaves
    its section with the words "Not measured in this sweep." `origin` adds ids and provenance.
    """
    view, origin = SweepView(results), origin or Origin()
    findings = [sharper(view, found) for found in all_findings(view.main)] if view.main is not None else []
    return fill_page(
        legends(view.train_buckets),
        ["style.css", "sweep.css"],
        results=results,
        summary=summarise(view, origin),
        findings=findings,
        sections=sweep_sections(view, findings, origin),
        downloads=sweep_csv_links(results),
        whole="sweep",
        paper=published.PAPER,
        paper_model=published.PAPER_MODEL,
        paper_after="strategies",
    )


def sweep_csv_links(results: SweepResults) -> Mapping[str, tuple[str, int]]:
    """For each table with rows: a data address of it as CSV, and its row count.

    The sweep's own tables, then OF_ALL and `divergence`, with the variant in the first column, and OF_MAIN; of
    `distribution` the percentage that is shown. `divergence` also has the accuracies of its figure. Numbers have
    six significant digits: a page of hundreds of models stays small.
    """
    view = SweepView(results)
    rows: dict[str, list[dict[str, object]]] = {
        name: [vars(row) for row in getattr(results, name)] for name in SWEEP_TABLES
    }
    for name in OF_ALL:
        rows[name] = [
            {"variant": variant.name, **vars(row)}
            for variant in results.variants
            for row in getattr(variant.results, name)
        ]
    rows["divergence"] = [
        {"variant": variant.name, **vars(row), "test_accuracy_bucket_4": _well_known(study, row)}
        for variant in results.variants
        for study in (view.view(variant.name),)
        for row in variant.results.divergence
    ]
    main = view.main
    if main is not None:
        at = distribution_percent(main)
        for name in OF_MAIN:
            found = getattr(main.results, name)
            rows[name] = [vars(r) for r in found if name != "distribution" or r.percent == at]
    return {
        name: (csv_address([{k: _short(v) for k, v in row.items()} for row in found]), len(found))
        for name, found in rows.items()
        if found
    }


def _well_known(study: View, row: DivergenceRow) -> float | None:
    """The accuracy that the figure shows next to a model's KL."""
    found = study.row(row.cell, row.percent, TEST, 4)
    return found.accuracy if found else None


def _short(value: object) -> object:
    return float(f"{value:.6g}") if isinstance(value, float) else value
