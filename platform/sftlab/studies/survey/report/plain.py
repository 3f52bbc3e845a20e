"""Plain tables of a page from rows of a survey's tables, and how numbers are written in them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from sftlab.reporting.table import Entry, Row, Table
from sftlab.reporting.text import UNDEFINED, number, percent

Rows = Sequence[Mapping[str, Any]]


def plain_table(
    caption: str,
    corner: str,
    rows: Rows,
    heading: str,
    columns: Mapping[str, str],
    digits: int = 1,
) -> Table | None:
    """A table of some columns of rows, shares in per cent; None without rows."""
    if not rows:
        return None
    return Table(
        caption,
        corner,
        list(columns.values()),
        [
            Row(
                str(row[heading]),
                [Entry(cell_text(row[key], digits, key.startswith("share"))) for key in columns],
            )
            for row in rows
        ],
    )


def with_words(table: Table | None, note: str = "", folded: str = "") -> Table | None:
    """The table with a note below it, or folded under a label."""
    return None if table is None else replace(table, note=note, folded=folded)


def cell_text(value: Any, digits: int, share: bool) -> str:
    if value is None or (isinstance(value, float) and np.isnan(value)):
        return "–"
    if isinstance(value, bool | np.bool_):
        return "yes" if value else "no"
    if isinstance(value, float | np.floating):
        if share:
            return percent(float(value), 0)
        return f"{value:g}" if float(value).is_integer() else number(float(value), digits)
    return f"{value:,}" if isinstance(value, int) else str(value)


def signed(value: float) -> str:
    text = number(float(value), 2)
    if text == UNDEFINED:
        return text
    return text if text.startswith("−") or float(text) == 0 else f"+{text}"


def p_text(p: float) -> str:
    """A p value with three digits, a dash where there is none."""
    if np.isnan(p):
        return UNDEFINED
    return "< 0.001" if p < 0.001 else f"{p:.3f}"
