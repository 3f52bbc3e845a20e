"""One self-contained HTML page from its sections."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from importlib.resources import files
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from sftlab.reporting.legend import Legend

if TYPE_CHECKING:
    from jinja2 import Environment


def fill_page(legends: Mapping[str, Legend], styles: Sequence[str], **content: Any) -> str:
    """A page: its content with the style sheets. legends: by section; that of "" is for all sections without one."""
    data = files("sftlab.reporting").joinpath("data")
    style = "".join(data.joinpath(name).read_text(encoding="utf-8") for name in styles)
    return environment().get_template("page.html.j2").render(**content, legends=legends, style=style)


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
    """The rows as CSV in a data address; at least one."""
    buffer = io.StringIO()
    writer = csv.DictWriter(buffer, fieldnames=list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows({name: no_formula(value) for name, value in row.items()} for row in rows)
    return "data:text/csv;charset=utf-8," + quote(buffer.getvalue())


def no_formula(value: object) -> object:
    """A value for a CSV: a text that a spreadsheet would run gets an apostrophe."""
    return (
        f"'{value}"
        if isinstance(value, str) and value.startswith(("=", "+", "-", "@", "\t", "\r"))
        else value
    )
