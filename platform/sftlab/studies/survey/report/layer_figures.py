"""Figures of causal layer maps, as inline SVG."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from sftlab.reporting.svg import FAINT, drawing, inline
from sftlab.studies.survey.report.figures import COLOURS, MARKERS

Row = Mapping[str, Any]


def alone(rows: Sequence[Row], kind: str, title: str, label: str) -> str:
    """The effect of each layer by its position: a line a model, with intervals."""
    value = "gain" if kind == "only" else "change"
    with drawing(4.9, 3.4) as (figure, axes):
        axes.axhline(0, color=FAINT, linewidth=0.8)
        for place, (name, here) in enumerate(_models(rows, kind).items()):
            layers = [row for row in here if row["part"] != "outside"]
            axes.errorbar(
                [(int(row["part"]) + 0.5) / row["layers"] for row in layers],
                [row[value] for row in layers],
                yerr=[
                    [row[value] - row[f"{value}_low"] for row in layers],
                    [row[f"{value}_high"] - row[value] for row in layers],
                ],
                color=COLOURS[place % len(COLOURS)],
                marker=MARKERS[place % len(MARKERS)],
                elinewidth=0.7,
                label=name,
            )
        axes.set_xlim(0, 1)
        axes.set_xlabel("position (0 input, 1 output)")
        axes.set_ylabel(label)
        axes.legend(frameon=False, fontsize=7)
        axes.set_title(title)
        return inline(figure, f"layer-map-{kind}", f"{title}, by position")


def cumulative(rows: Sequence[Row]) -> str | None:
    """The share of the gain that the layers up to each one bring together, from the input and from the output."""
    kinds = {"first": "-", "last": "--"}
    if not any(row["kind"] in kinds for row in rows):
        return None
    with drawing(4.9, 3.4) as (figure, axes):
        axes.axhline(0, color=FAINT, linewidth=0.8)
        for kind, line in kinds.items():
            for place, name in enumerate(_models(rows, kind)):
                points = _points(rows, kind, name)
                axes.plot(
                    [share for share, _ in points],
                    [gain for _, gain in points],
                    linestyle=line,
                    color=COLOURS[place % len(COLOURS)],
                    marker=MARKERS[place % len(MARKERS)],
                    label=name if kind == "first" else None,
                )
        axes.set_xlim(0, 1.03)
        axes.set_xlabel("share of the layers (solid: from the input, dashed: from the output)")
        axes.set_ylabel("gain (points)")
        axes.legend(frameon=False, fontsize=7, ncols=2)
        axes.set_title("The base with the updates of several layers")
        return inline(figure, "layer-map-cumulative", "Gain by the number of layers with updates")


def _points(rows: Sequence[Row], kind: str, name: str) -> list[tuple[float, float]]:
    """Share of the layers and gain, from one layer from that end to all layers, whose swaps have other kinds."""
    layers = next(iter(_models(rows, kind)[name]))["layers"]
    counts = {
        ("only", "0" if kind == "first" else str(layers - 1)): 1,
        ("back", "outside"): layers,
    } | {(kind, str(count)): count for count in range(2, layers)}
    found = [
        (counts[row["kind"], row["part"]] / layers, row["gain"])
        for of_kind in ("only", kind, "back")
        for row in _models(rows, of_kind)[name]
        if (row["kind"], row["part"]) in counts
    ]
    return sorted(found)


def _models(rows: Sequence[Row], kind: str) -> dict[str, list[Row]]:
    """The rows of one kind of swap by model."""
    found: dict[str, list[Row]] = {}
    for row in rows:
        if row["kind"] == kind:
            found.setdefault(f"{row['model']}, {row['data']}", []).append(row)
    return found
