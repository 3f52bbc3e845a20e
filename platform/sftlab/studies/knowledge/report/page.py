"""The report of a study or a sweep: one self-contained HTML page, the recommendation first, the settings last."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from sftlab.reporting.page import csv_address, fill_page
from sftlab.studies.knowledge.report import answer_kinds, fates, published, topics
from sftlab.studies.knowledge.report.buckets import legends
from sftlab.studies.knowledge.report.caveat import caveat_of
from sftlab.studies.knowledge.report.evidence import distribution_percent
from sftlab.studies.knowledge.report.findings import all_findings
from sftlab.studies.knowledge.report.lookup import TEST, VariantView
from sftlab.studies.knowledge.report.origin import Origin
from sftlab.studies.knowledge.report.sections import sections
from sftlab.studies.knowledge.report.summary import summarise
from sftlab.studies.knowledge.report.view import View
from sftlab.studies.knowledge.results.rows import DivergenceRow
from sftlab.studies.knowledge.results.tables import RESULT_TABLES, VARIANT_TABLES, Results

# Tables of the variants that a page of several offers: of all variants, and of the main one alone. The others stay
# in the store.
OF_ALL, OF_MAIN = (
    ("cells",),
    (
        "concentration",
        "distribution",
        "undone",
        "updates",
        "mastery",
        "certainty",
        "drawn",
        "topic_baselines",
        "mastery_after",
    ),
)
# Of the main one, with the rows of these functions.
OF_SHOWN: Mapping[str, Callable[[VariantView], Sequence[object]]] = {
    "fates": fates.shown_rows,
    "answer_kinds": answer_kinds.shown_rows,
    "topics": topics.shown_rows,
}


# docs/results/knowledge.md has the trials.
def render(results: Results, origin: Origin | None = None) -> str:
    """The page as HTML text. It refers to nothing outside itself; the same results give the same bytes.

    Every text from the results is escaped; figures are SVG made here. What was not measured leaves
    its section with the words "Not measured." `origin` adds ids and provenance.
    """
    view, origin = View(results), origin or Origin()
    findings = all_findings(view)
    return fill_page(
        legends(view.train_buckets),
        ["style.css", "sweep.css"],
        results=results,
        summary=summarise(view, origin),
        findings=findings,
        sections=sections(view, findings, origin),
        downloads=csv_links(results),
        whole=results.kind,
        paper=published.PAPER,
        paper_model=published.PAPER_MODEL,
        paper_after="strategies",
        caveat=caveat_of(results),
    )


def csv_links(results: Results) -> Mapping[str, tuple[str, int]]:
    """For each table with rows: a data address of it as CSV, and its row count.

    Of a single variant these are all tables in full precision. Of several they are those of the results, then OF_ALL
    and `divergence` with the variant in the first column, and OF_MAIN and OF_SHOWN of the main one. Of `distribution`
    and OF_SHOWN they hold the percentages that are shown; numbers have six significant digits, so that a page of
    hundreds of models stays small. `divergence` also has the accuracies of its figure.
    """
    view = View(results)
    rows: dict[str, list[dict[str, object]]] = {
        name: [vars(row) for row in getattr(results, name)] for name in RESULT_TABLES
    }
    for name in VARIANT_TABLES if not view.several else OF_ALL:
        rows[name] = [
            ({"variant": variant.name} if view.several else {}) | vars(row)
            for variant in results.variants
            for row in getattr(variant, name)
        ]
    rows["divergence"] = [
        {"variant": variant.name, **vars(row), "test_accuracy_bucket_4": _well_known(variant_view, row)}
        for variant in results.variants
        for variant_view in (view.view(variant.name),)
        for row in variant.divergence
    ]
    main = view.main
    if main is not None:
        rows |= {name: [vars(row) for row in shown_rows(main)] for name, shown_rows in OF_SHOWN.items()}
    if main is not None and view.several:
        at = distribution_percent(main)
        for name in OF_MAIN:
            found = getattr(main.variant, name)
            rows[name] = [vars(r) for r in found if name != "distribution" or r.percent == at]
    short = _short if view.several else (lambda value: value)
    return {
        name: (csv_address([{k: short(v) for k, v in row.items()} for row in found]), len(found))
        for name, found in rows.items()
        if found
    }


def _well_known(view: VariantView, row: DivergenceRow) -> float | None:
    """The accuracy that the figure shows next to a model's KL."""
    found = view.row(row.cell, row.percent, TEST, 4)
    return found.accuracy if found else None


def _short(value: object) -> object:
    return float(f"{value:.6g}") if isinstance(value, float) else value
