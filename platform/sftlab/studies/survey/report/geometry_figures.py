"""Figures of the geometry of hidden states, as inline SVG."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from sftlab.reporting.svg import INK, drawing, inline
from sftlab.studies.survey.report.figures import COLOURS

Row = Mapping[str, Any]


def by_position(name: str, rows: Sequence[Row], layers: Sequence[Row], title: str, label: str) -> str:
    """A quantity by position: means of base and tuned models, with the lines of each base in colour."""
    with drawing(4.7, 3.2) as (figure, axes):
        for place, model in enumerate(dict.fromkeys(row["model"] for row in layers)):
            here = [row for row in layers if row["model"] == model]
            x, colour = [row["position"] for row in here], COLOURS[place % len(COLOURS)]
            axes.plot(x, [row[f"{name}_base"] for row in here], color=colour, linewidth=0.9, label=model)
            axes.plot(x, [row[f"{name}_tuned"] for row in here], color=colour, linewidth=0.9, linestyle="--")
        x = [row["position"] for row in rows]
        axes.plot(x, [row["base"] for row in rows], color=INK, label="base, mean")
        axes.plot(x, [row["tuned"] for row in rows], color=INK, linestyle="--", label="tuned, mean (dashed)")
        axes.set_xlim(0, 1)
        axes.set_xlabel("position (0 input, 1 output)")
        axes.set_ylabel(label)
        axes.legend(frameon=False, fontsize=6.5, ncols=2)
        axes.set_title(title)
        return inline(figure, f"geometry-{name}", f"{title} by position, base and tuned models")
