"""The report of a sweep: one self-contained HTML page, the recommendation first, the settings last."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from importlib.resources import files

from sftlab.analysis.sweep import SWEEP_TABLES, SweepResults
from sftlab.report import published
from sftlab.report.evidence import distribution_percent
from sftlab.report.findings import all_findings
from sftlab.report.page import csv_address, environment
from sftlab.report.svg import BUCKET_COLOURS, bucket_colour
from sftlab.report.sweep_sections import sweep_sections
from sftlab.report.sweep_summary import sharper, summarise
from sftlab.report.sweep_view import SweepView
from sftlab.report.wording import column_name

# Tables of the studies that figures are drawn from: of all variants, and of the main one alone. The others stay in
# the store.
OF_ALL, OF_MAIN = ("cells", "divergence"), ("concentration", "distribution", "mastery")


def render_sweep(results: SweepResults) -> str:
    """The page as HTML text. It refers to nothing outside itself; the same results give the same bytes.

    Every text from the results is escaped; figures are SVG made here. What the sweep did not measure leaves
    its section with the words "Not measured in this sweep."
    """
    view = SweepView(results)
    findings = [sharper(view, found) for found in all_findings(view.main)] if view.main is not None else []
    style = files("sftlab.report").joinpath("data")
    return (
        environment()
        .get_template("page.html.j2")
        .render(
            results=results,
            summary=summarise(view),
            findings=findings,
            sections=sweep_sections(view, findings),
            buckets=view.train_buckets,
            all_buckets=[bucket for bucket in BUCKET_COLOURS if bucket != "mixed"],
            colours={b: bucket_colour(b) for b in (*BUCKET_COLOURS, *view.train_buckets)},
            labels={bucket: column_name(bucket) for bucket in view.train_buckets},
            downloads=sweep_csv_links(results),
            whole="sweep",
            paper_after="strategies",
            style=style.joinpath("style.css").read_text(encoding="utf-8")
            + style.joinpath("sweep.css").read_text(encoding="utf-8"),
            paper=published.PAPER,
            paper_model=published.PAPER_MODEL,
        )
    )


def sweep_csv_links(results: SweepResults) -> Mapping[str, tuple[str, int]]:
    """For each table with rows: a data address of it as CSV, and its row count.

    The sweep's own tables, then OF_ALL, with the variant in the first column, and OF_MAIN; of `distribution` the
    percentage that is shown. Numbers have six significant digits: a page of hundreds of models stays small.
    """
    rows: dict[str, list[dict[str, object]]] = {
        name: [asdict(row) for row in getattr(results, name)] for name in SWEEP_TABLES
    }
    for name in OF_ALL:
        rows[name] = [
            {"variant": variant.name, **asdict(row)}
            for variant in results.variants
            for row in getattr(variant.results, name)
        ]
    main = SweepView(results).main
    if main is not None:
        at = distribution_percent(main)
        for name in OF_MAIN:
            found = getattr(main.results, name)
            rows[name] = [asdict(r) for r in found if name != "distribution" or r.percent == at]
    return {
        name: (csv_address([{k: _short(v) for k, v in row.items()} for row in found]), len(found))
        for name, found in rows.items()
        if found
    }


def _short(value: object) -> object:
    return float(f"{value:.6g}") if isinstance(value, float) else value
