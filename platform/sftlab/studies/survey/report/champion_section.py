"""The section on the best model of each base, which a survey chooses and a table of scores has not."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sftlab.reporting.section import Section
from sftlab.reporting.table import NOTHING, Entry, Row, Table
from sftlab.reporting.text import count, listed
from sftlab.studies.survey.compare import Comparison
from sftlab.studies.survey.report.plain import signed

CHAMPIONS = "champions"  # a table that only surveys have


def champions(comparison: Comparison) -> Section | None:
    """The best model of each base on half of the questions, and its gain on the other half."""
    rows = comparison.tables.get(CHAMPIONS, ())
    if not rows:
        return None
    better = [row["base"] for row in rows if row["low"] is not None and row["low"] > 0]
    see = (
        "Each base has the tuned model with the largest mean gain on half of the questions of every benchmark (dev). "
        "The other half (test) took no part in the choice. "
    )
    if better:
        see += f"On it, the model is better than its base for {listed(better)}."
    else:
        see += "On it, no model is distinguishable from its base."
    table = Table(
        "Mean gain over the base in standard deviations of each benchmark's gains over all tuned models",
        "base",
        ["best model", "epoch", "gain on dev", "as good on dev", "gain on test", "questions of test"],
        [_row(row) for row in rows],
        note="95 % interval: bootstrap over the questions of each benchmark. Dev gains are those of the best of many "
        "models and too high by that.",
    )
    title = "The best model of each base"
    return Section(CHAMPIONS, title, see, tables=[table], data=(CHAMPIONS,))


def _row(row: Mapping[str, Any]) -> Row:
    test = NOTHING
    if row["test"] is not None:
        test = Entry(signed(row["test"]), f"[{signed(row['low'])}, {signed(row['high'])}]")
    ties = count(row["ties"], "other") if row["ties"] else "–"
    cells = [Entry(row["name"]), Entry(str(row["epoch"])), Entry(signed(row["dev"])), Entry(ties)]
    return Row(row["base"], [*cells, test, Entry(f"{row['questions']:,}")])
