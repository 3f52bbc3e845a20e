"""Figures of the geometry of hidden states, as inline SVG."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from sftlab.reporting.svg import INK, drawing, inline
from sftlab.studies.survey.report.figures import COLOURS, MARKERS
from sftlab.studies.survey.report.maps import short

Row = Mapping[str, Any]
MOST_DRAWN = 500  # points of a picture; the table has all of them


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


def state_points(rows: Sequence[Row], sets: Sequence[str], title: str, name: str) -> str:
    """Figure A.4: the states of one model, coloured by the set of the prompt; every nth of many."""
    with drawing(2.9, 2.7) as (figure, axes):
        for place, one in enumerate(sets):
            here = [row for row in rows[:: -(-len(rows) // MOST_DRAWN)] if row["prompt_of"] == one]
            axes.scatter([row["x"] for row in here], [row["y"] for row in here], s=7, **_look(place))
        axes.set_xticks([])
        axes.set_yticks([])
        axes.grid(visible=False)
        axes.set_title(short(title, 26))
        return inline(figure, name, f"States of the last layer of {title}, coloured by the set of the prompt")


def state_legend(sets: Sequence[str]) -> str:
    """What the colours of `state_points` mean."""
    with drawing(2.9, 2.7) as (figure, axes):
        for place, one in enumerate(sets):
            axes.scatter([], [], s=16, label=short(one), **_look(place))
        axes.set_axis_off()
        axes.legend(frameon=False, fontsize=8, loc="center left", ncols=1 + (len(sets) > 8))
        axes.set_title("Set of the prompt")
        return inline(figure, "states-legend", f"Colours of the sets {', '.join(sets)}")


def _look(place: int) -> dict[str, Any]:
    """Colour and marker of a set; together they are unique."""
    marker = MARKERS[(place + place // len(COLOURS)) % len(MARKERS)]
    return {"color": COLOURS[place % len(COLOURS)], "marker": marker, "alpha": 0.8, "linewidths": 0}
