"""Figures of the map of models, as inline SVG."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from sftlab.reporting.svg import drawing, inline
from sftlab.studies.survey.report.figures import COLOURS, MARKERS
from sftlab.studies.survey.report.maps import short

Row = Mapping[str, Any]


def map_points(rows: Sequence[Row], label: str, title: str) -> str:
    """Figure 6: every model, coloured by one label; colour and marker together name a value."""
    values = sorted({row[label] for row in rows}, key=lambda value: (isinstance(value, str), value))
    with drawing(3.9, 3.4) as (figure, axes):
        for place, value in enumerate(values):
            here = [row for row in rows if row[label] == value]
            axes.scatter(
                [row["x"] for row in here],
                [row["y"] for row in here],
                s=16,
                color=COLOURS[place % len(COLOURS)],
                marker=MARKERS[(place + place // len(COLOURS)) % len(MARKERS)],
                alpha=0.85,
                linewidths=0,
                label=short(_name(value)),
            )
        axes.set_xticks([])
        axes.set_yticks([])
        axes.legend(
            frameon=False,
            fontsize=6.5,
            loc="upper center",
            bbox_to_anchor=(0.5, -0.02),
            ncols=min(3, -(-len(values) // 2)),
        )
        axes.set_title(title)
        name = f"map-{rows[0]['text']}-{label}"
        return inline(figure, name, f"Map of models, coloured by {title}")


def _name(value: Any) -> str:
    """How a legend shows a value; base models have no method, size and epoch."""
    return f"{value:g}" if isinstance(value, int | float) and value else str(value or "base")
