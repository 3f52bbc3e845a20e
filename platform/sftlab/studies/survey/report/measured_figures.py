"""Figures of what a survey measured besides scores, as inline SVG."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import isnan
from typing import Any

from sftlab.reporting.svg import FAINT, INK, drawing, inline
from sftlab.studies.survey.report.figures import COLOURS, points_by_model

Row = Mapping[str, Any]


def perplexity_points(rows: Sequence[Row]) -> str:
    """Figure 4a: each set under each base, its perplexity on a logarithmic axis and the mean gain in points."""
    with drawing(4.9, 3.4) as (figure, axes):
        points_by_model(axes, [(row["model"], row["response"], row["gain"]) for row in rows])
        axes.set_xscale("log")
        axes.xaxis.set_major_formatter(lambda value, _: f"{value:,g}")
        axes.xaxis.set_minor_formatter("")
        axes.set_xlabel("perplexity of the responses under the base")
        axes.set_ylabel("mean gain (points)")
        axes.legend(frameon=False, fontsize=7)
        axes.set_title("Perplexity and gain")
        return inline(figure, "perplexity", "Perplexity of each set under each base against its mean gain")


def layer_curves(rows: Sequence[Row], by_model: Sequence[Row] = ()) -> str:
    """Figure 5a: change by position, and its correlation with gains over what shuffled sets give; thin: each base."""
    x = [row["position"] for row in rows]
    with drawing(4.9, 3.3) as (figure, axes):
        axes.fill_between(
            x,
            [row["null_low"] for row in rows],
            [row["null_high"] for row in rows],
            color=FAINT,
            alpha=0.35,
            linewidth=0,
            label="r, sets shuffled (95 %)",
        )
        axes.axhline(0, color=FAINT, linewidth=0.8)
        for place, model in enumerate(dict.fromkeys(row["model"] for row in by_model)):
            here = [row["r_with_gain"] for row in by_model if row["model"] == model]
            axes.plot(
                x, here, color=COLOURS[0], linewidth=0.6, alpha=0.45, label=None if place else "r, each base"
            )
        axes.plot(
            x, [row["r_with_gain"] for row in rows], color=COLOURS[0], label="r of change and gain, mean"
        )
        axes.set_ylim(-1.05, 1.05)
        axes.set_xlabel("position (0 input, 1 output)")
        axes.set_ylabel("r of change and gain")
        other = axes.twinx()
        other.plot(
            x,
            [100 * row["relative_change"] for row in rows],
            color=COLOURS[1],
            linestyle="--",
            label="relative change",
        )
        other.set_ylim(bottom=0)
        other.set_ylabel("relative change (%)")
        lines = axes.get_legend_handles_labels()
        more = other.get_legend_handles_labels()
        axes.legend(lines[0] + more[0], lines[1] + more[1], frameon=False, fontsize=7)
        axes.set_title("Change of weights and gain, by layer")
        return inline(figure, "layers", "Change of weights by position and its correlation with the gain")


def layer_agreement(rows: Sequence[Row]) -> str | None:
    """Figure 5c: agreement of models on which sets change a layer much."""
    if any(isnan(row["r_between_models"]) for row in rows):
        return None
    with drawing(4.7, 3.1) as (figure, axes):
        axes.axhline(0, color=FAINT, linewidth=0.8)
        axes.plot([row["position"] for row in rows], [row["r_between_models"] for row in rows], color=INK)
        axes.set_ylim(-1.05, 1.05)
        axes.set_xlabel("position (0 input, 1 output)")
        axes.set_ylabel("mean r of two models")
        axes.set_title("Do sets change the same layers in all models?")
        return inline(figure, "layer-agreement", "Agreement of models on the change of each layer")


def form_bars(rows: Sequence[Row]) -> str:
    """The two parts of the gain of each set."""
    names = [row["data"] for row in rows]
    places = list(range(len(rows)))
    with drawing(4.9, 0.9 + 0.32 * len(rows)) as (figure, axes):
        for shift, (name, colour, label) in zip(
            (-0.18, 0.18),
            (("form", COLOURS[4], "form"), ("accuracy", COLOURS[0], "accuracy given form")),
            strict=True,
        ):
            values = [row[name] for row in rows]
            ends = [
                [row[name] - row[f"{name}_low"] for row in rows],
                [row[f"{name}_high"] - row[name] for row in rows],
            ]
            at = [place + shift for place in places]
            axes.barh(at, values, 0.34, xerr=ends, color=colour, label=label, error_kw={"linewidth": 0.8})
        axes.axvline(0, color=FAINT, linewidth=0.8)
        axes.set_yticks(places, names)
        axes.invert_yaxis()
        axes.set_xlabel("points")
        axes.legend(frameon=False, fontsize=8)
        axes.set_title("Parts of the gain")
        return inline(figure, "form", "Gain by set, in the parts form and accuracy given form")
