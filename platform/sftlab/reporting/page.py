"""One self-contained HTML page from its sections."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from importlib.resources import files
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from sftlab.studies.knowledge.report import published
from sftlab.studies.knowledge.report.buckets import BUCKET_COLOURS, bucket_colour, column_name

if TYPE_CHECKING:
    from jinja2 import Environment


def fill_page(train_buckets: Sequence[str], styles: Sequence[str], **content: Any) -> str:
    """The page of a study or a sweep: its content, with the style sheets and the colours of the buckets."""
    data = files("sftlab.reporting").joinpath("data")
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
        loader=PackageLoader("sftlab.reporting", "data"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


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
