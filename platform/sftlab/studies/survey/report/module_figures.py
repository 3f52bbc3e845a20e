"""Figures and the table of the change of weights by module and base (Figure 5b), as inline SVG."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import isnan
from typing import Any

from sftlab.reporting.svg import INK, drawing, inline
from sftlab.reporting.table import NOTHING, Entry, Row, Table
from sftlab.reporting.text import number, percent
from sftlab.studies.survey.module_tables import AT_POSITION
from sftlab.studies.survey.report.figures import COLOURS, MARKERS, points_by_model
from sftlab.studies.survey.similarity import ALL_MODELS

Rows = Sequence[Mapping[str, Any]]


def change_and_gain(rows: Rows) -> str | None:
    """Figure 5b: each set under each base, the change at one position and the mean gain."""
    if not rows:
        return None
    with drawing(4.9, 3.4) as (figure, axes):
        points_by_model(
            axes, [(row["model"], 100 * row["relative_change"], row["standardised_gain"]) for row in rows]
        )
        axes.set_xlabel(f"relative change at position {rows[0]['position']:g} (%)")
        axes.set_ylabel("mean gain (standard deviations)")
        axes.legend(frameon=False, fontsize=7)
        axes.set_title(f"Change at position {rows[0]['position']:g} and gain")
        return inline(
            figure, "layer-points", "Change of weights at one position against the mean gain, by base"
        )


def module_lines(rows: Rows) -> str | None:
    """The change of each module by base, and the mean over bases."""
    shown = [row for row in rows if row["part"] != AT_POSITION]
    if not shown:
        return None
    parts = list(dict.fromkeys(row["part"] for row in shown))
    with drawing(4.9, 1.2 + 0.27 * len(parts)) as (figure, axes):
        for place, model in enumerate(dict.fromkeys(row["model"] for row in shown)):
            here = [row for row in shown if row["model"] == model]
            mean = model == ALL_MODELS
            axes.scatter(
                [100 * row["relative_change"] for row in here],
                [parts.index(row["part"]) for row in here],
                s=34 if mean else 18,
                color=INK if mean else COLOURS[place % len(COLOURS)],
                marker="|" if mean else MARKERS[place % len(MARKERS)],
                linewidths=1.6 if mean else 0,
                label=model,
            )
        axes.set_yticks(range(len(parts)), parts)
        axes.invert_yaxis()
        axes.set_xlim(left=0)
        axes.set_xlabel("relative change (%), mean over sets")
        axes.legend(frameon=False, fontsize=6.5, ncols=4, loc="upper center", bbox_to_anchor=(0.45, -0.14))
        axes.set_title("Change of weights, by module")
        return inline(figure, "modules", "Relative change of each module, by base")


def module_table(rows: Rows) -> Table | None:
    """Change and correlation with gains by part: means over bases, and r of each base."""
    if not rows:
        return None
    models = [name for name in dict.fromkeys(row["model"] for row in rows) if name != ALL_MODELS]
    found = {(row["part"], row["model"]): row for row in rows}
    parts = list(dict.fromkeys(row["part"] for row in rows))
    return Table(
        "Change of weights by module, and its correlation with the mean gain over sets",
        "module",
        ["change", "r, mean of bases", "shuffled sets", *(f"r, {model}" for model in models)],
        [
            Row(
                part,
                [*_mean(found.get((part, ALL_MODELS))), *(_r(found.get((part, model))) for model in models)],
            )
            for part in parts
        ],
        note=f"Change: relative, mean over sets and bases. Modules are those of all layers; {AT_POSITION}: all "
        "modules, interpolated between layers. Shuffled sets: 95 % of r.",
        folded=f"Change and correlation of {len(parts)} parts",
    )


def _mean(row: Mapping[str, Any] | None) -> list[Entry]:
    if row is None:
        return [NOTHING] * 3
    null = NOTHING
    if not isnan(row["null_low"]):
        null = Entry(f"{number(row['null_low'], 2)} to {number(row['null_high'], 2)}")
    return [Entry(percent(row["relative_change"], 2)), _r(row), null]


def _r(row: Mapping[str, Any] | None) -> Entry:
    return NOTHING if row is None or isnan(row["r_with_gain"]) else Entry(number(row["r_with_gain"], 2))
