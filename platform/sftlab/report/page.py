"""The report: one self-contained HTML page from a study's results."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from importlib.resources import files
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from sftlab.analysis.results import TABLES, StudyResults
from sftlab.report import published
from sftlab.report.findings import all_findings
from sftlab.report.lookup import View
from sftlab.report.origin import Origin
from sftlab.report.sections import sections
from sftlab.report.summary import summarise
from sftlab.report.svg import BUCKET_COLOURS, bucket_colour
from sftlab.report.wording import column_name

if TYPE_CHECKING:
    from jinja2 import Environment


def render(results: StudyResults, origin: Origin | None = None) -> str:
    """The page as HTML text. It refers to nothing outside itself; the same results give the same bytes.

    Every text from the results is escaped; figures are SVG made here. A table that the study left empty
    leaves its section with the words "Not measured in this study." `origin` adds ids and provenance.
    """
    view, origin = View(results), origin or Origin()
    findings = all_findings(view)
    return fill_page(
        view.train_buckets,
        ["style.css"],
        results=results,
        summary=summarise(view, origin),
        findings=findings,
        sections=sections(view, findings, origin),
        downloads=csv_links(results),
        whole="study",
        paper_after="",
    )


def fill_page(train_buckets: Sequence[str], styles: Sequence[str], **content: Any) -> str:
    """The page of a study or a sweep: its content, with the style sheets and the colours of the buckets."""
    data = files("sftlab.report").joinpath("data")
    return (
        environment()
        .get_template("page.html.j2")
        .render(
            **content,
            buckets=train_buckets,
            all_buckets=[bucket for bucket in BUCKET_COLOURS if bucket != "mixed"],
            colours={b: bucket_colour(b) for b in (*BUCKET_COLOURS, *train_buckets)},
            labels={bucket: column_name(bucket) for bucket in train_buckets},
            style="".join(data.joinpath(name).read_text(encoding="utf-8") for name in styles),
            paper=published.PAPER,
            paper_model=published.PAPER_MODEL,
        )
    )


def environment() -> Environment:
    """Templates of the package's reports: everything is escaped, an unknown name is an error."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    return Environment(
        loader=PackageLoader("sftlab.report", "data"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def csv_links(results: StudyResults) -> Mapping[str, tuple[str, int]]:
    """For each result table with rows: a data address of it as CSV in full precision, and its row count."""
    links = {}
    for name in TABLES:
        rows = results.table(name).to_pylist()
        if rows:
            links[name] = (csv_address(rows), len(rows))
    return links


def csv_address(rows: list[dict[str, object]]) -> str:
    """The rows as CSV in a data address; at least one. A text that a spreadsheet would run gets an apostrophe."""
    buffer = io.StringIO()
    writer = csv.DictWriter(buffer, fieldnames=list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows({name: _no_formula(value) for name, value in row.items()} for row in rows)
    return "data:text/csv;charset=utf-8," + quote(buffer.getvalue())


def _no_formula(value: object) -> object:
    return (
        f"'{value}"
        if isinstance(value, str) and value.startswith(("=", "+", "-", "@", "\t", "\r"))
        else value
    )
