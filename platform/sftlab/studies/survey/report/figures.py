"""Figures of a survey as inline SVG. Each takes the survey or rows of its tables, and returns None without data."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from sftlab.analysis.gains import BASELINE_FREE, RAW, STANDARDISED
from sftlab.reporting.svg import FAINT, INK, drawing, inline
from sftlab.studies.survey.report.maps import short
from sftlab.studies.survey.report.plain import p_text
from sftlab.studies.survey.survey import Floats, Survey

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Row = Mapping[str, Any]
# Okabe and Ito's palette, which is distinct under all common forms of colour blindness.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#555555", "#F0E442")
MARKERS = "osD^vPX*"


def component_curves(rows: Sequence[Row]) -> str:
    """Figure 2d: cumulative explained variance, with the null of shuffled sets in grey."""
    with drawing(4.7, 3.1) as (figure, axes):
        for number, treatment in enumerate((RAW, BASELINE_FREE)):
            here = [row for row in rows if row["treatment"] == treatment]
            k = [row["components"] for row in here]
            colour = COLOURS[number]
            axes.plot(
                k,
                [100 * row["explained"] for row in here],
                color=colour,
                marker=MARKERS[number],
                label=treatment,
            )
            axes.fill_between(
                k,
                [100 * row["null_low"] for row in here],
                [100 * row["null_high"] for row in here],
                color=colour,
                alpha=0.22,
                linewidth=0,
                label=f"{treatment}, sets shuffled",
            )
        axes.axhline(90, color=FAINT, linewidth=0.8, linestyle="--")
        axes.set_xlabel("components")
        axes.set_ylabel("explained variance (%)")
        axes.set_ylim(0, 102)
        axes.set_xticks([row["components"] for row in rows if row["treatment"] == RAW])
        axes.legend(frameon=False, fontsize=8, loc="lower right")
        axes.set_title("Components of the gains")
        return inline(figure, "components", "Explained variance by number of components")


def structure_points(rows: Sequence[Row]) -> str:
    """Figure 3d in three treatments: each pair of models once, agreement on benchmarks against agreement on sets."""
    names = list(dict.fromkeys(row["treatment"] for row in rows))
    with drawing(4.7, 3.3) as (figure, axes):
        ends = [value for row in rows for value in (row["benchmarks"], row["sets"])]
        low, high = min(ends), max(ends)
        axes.plot([low, high], [low, high], color=FAINT, linewidth=0.8, linestyle="--")
        for number, name in enumerate(names):
            here = [row for row in rows if row["treatment"] == name]
            axes.scatter(
                [row["sets"] for row in here],
                [row["benchmarks"] for row in here],
                s=13,
                color=COLOURS[number],
                marker=MARKERS[number],
                alpha=0.75,
                linewidths=0,
                label=name,
            )
        axes.set_xlabel("r of training-set structure")
        axes.set_ylabel("r of benchmark structure")
        axes.legend(frameon=False, fontsize=8)
        axes.set_title("Agreement of each pair of models")
        return inline(figure, "structure", "Agreement of pairs of models on benchmarks and on training sets")


def points_by_model(axes: Axes, points: Sequence[tuple[str, float, float]]) -> None:
    """Points of (model, x, y) over a line at y = 0, with a colour and a marker for each model."""
    axes.axhline(0, color=FAINT, linewidth=0.8)
    for place, model in enumerate(dict.fromkeys(name for name, _, _ in points)):
        here = [(x, y) for name, x, y in points if name == model]
        axes.scatter(
            [x for x, _ in here],
            [y for _, y in here],
            s=16,
            color=COLOURS[place % len(COLOURS)],
            marker=MARKERS[place % len(MARKERS)],
            alpha=0.8,
            linewidths=0,
            label=model,
        )


def length_points(survey: Survey, lengths: Floats) -> str:
    """Figure 4b: mean standardised gain of each set against its length; a small dot for each model."""
    cells = survey.gains[STANDARDISED].mean(axis=2)
    with drawing(4.7, 3.3) as (figure, axes):
        for by_set in cells:
            axes.scatter(lengths, by_set, s=7, color="#b8c2cc", linewidths=0)
        mean = cells.mean(axis=0)
        axes.scatter(lengths, mean, color=COLOURS[0], zorder=3)
        for name, x, y in zip(survey.grid.sets, lengths, mean, strict=True):
            right = x > np.median(lengths) * 1.5
            axes.annotate(
                short(name, 18),
                (x, y),
                xytext=(-5 if right else 5, 4),
                textcoords="offset points",
                fontsize=7,
                ha="right" if right else "left",
            )
        axes.axhline(0, color=FAINT, linewidth=0.8)
        axes.set_xlabel("mean length of an example")
        axes.set_ylabel("mean standardised gain")
        axes.set_title("Length of the examples and gain")
        return inline(figure, "length", "Mean gain of each training set against the length of its examples")


def set_effects(rows: Sequence[Row]) -> str:
    """Mean gain of each set with its interval, with the baseline and free of it."""
    ordered = sorted(rows, key=lambda row: row["standardised"])
    with drawing(4.9, 0.33 * len(rows) + 1.2) as (figure, axes):
        for number, name in enumerate(("standardised", "baseline_free")):
            y = np.arange(len(ordered), dtype=np.float64) + (0.14 if number == 0 else -0.14)
            _intervals(
                axes,
                [row[name] for row in ordered],
                [(row[f"{name}_low"], row[f"{name}_high"]) for row in ordered],
                y,
                number,
                name.replace("_", "-"),
            )
        axes.set_yticks(range(len(ordered)), [short(row["data"]) for row in ordered])
        axes.set_xlabel("mean gain (sd), 95 % interval")
        axes.legend(frameon=False, fontsize=8, loc="lower right")
        axes.set_title("Training sets")
        return inline(figure, "sets", "Mean gain of each training set with intervals")


def variance_bars(rows: Sequence[Row]) -> str:
    """Shares of the sum of squares, one bar for each treatment."""
    parts = [row["part"] for row in rows if row["treatment"] == RAW]
    names = list(dict.fromkeys(row["treatment"] for row in rows))
    with drawing(6.4, 0.38 * len(names) + 1.5) as (figure, axes):
        left = np.zeros(len(names))
        for number, part in enumerate(parts):
            width = np.array(
                [
                    next(r["share"] for r in rows if (r["treatment"], r["part"]) == (name, part))
                    for name in names
                ]
            )
            axes.barh(
                range(len(names)),
                100 * width,
                left=100 * left,
                color=COLOURS[number],
                height=0.62,
                label=part,
            )
            for y, (start, share) in enumerate(zip(left, width, strict=True)):
                if share > 0.045:
                    axes.text(
                        100 * (start + share / 2),
                        y,
                        f"{100 * share:.0f}",
                        ha="center",
                        va="center",
                        fontsize=7.5,
                        color="white" if number in (0, 1, 2, 6) else INK,
                    )
            left += width
        axes.set_yticks(range(len(names)), names)
        axes.invert_yaxis()
        axes.grid(False)
        axes.set_xlabel("share of the variance (%)")
        figure.legend(frameon=False, fontsize=7.5, ncols=4, loc="outside lower center")
        axes.set_title("What the gains depend on")
        return inline(figure, "variance", "Shares of the variance of the gains")


def method_bars(rows: Sequence[Row]) -> str | None:
    """Difference of two methods by benchmark, in standard deviations."""
    if not rows:
        return None
    with drawing(4.7, 0.28 * len(rows) + 1.2) as (figure, axes):
        values = [row["standardised"] for row in rows]
        colours = [COLOURS[0] if value > 0 else COLOURS[1] for value in values]
        axes.barh(range(len(rows)), values, color=colours, height=0.65)
        for y, row in enumerate(rows):
            axes.text(
                row["standardised"],
                y,
                _p(row["p_over_models"]),
                fontsize=7,
                va="center",
                ha="left" if row["standardised"] > 0 else "right",
                color=FAINT,
            )
        axes.set_yticks(range(len(rows)), [short(row["benchmark"]) for row in rows])
        axes.invert_yaxis()
        axes.axvline(0, color=FAINT, linewidth=0.8)
        axes.margins(x=0.25)
        axes.set_xlabel(f"{rows[0]['first']} less {rows[0]['second']} (standard deviations)")
        axes.set_title("Methods")
        return inline(figure, "methods", "Difference of methods by benchmark")


def lines(
    groups: Mapping[str, Sequence[tuple[float, float]]], x: str, y: str, title: str, key: str
) -> str | None:
    """Named lines of (x, y) points."""
    shown = {name: points for name, points in groups.items() if len(points) > 1}
    if not shown:
        return None
    with drawing(4.7, 3.1) as (figure, axes):
        for number, (name, points) in enumerate(shown.items()):
            axes.plot(
                *zip(*points, strict=True),
                color=COLOURS[number % 7],
                marker=MARKERS[number % 8],
                markersize=4,
                label=name,
            )
        axes.set_xlabel(x)
        axes.set_ylabel(y)
        if len(shown) > 1:
            figure.legend(
                frameon=False, fontsize=7.5, loc="outside lower center", ncols=1 if len(shown) < 4 else 2
            )
        axes.set_title(title)
        return inline(figure, key, title)


def mixture_points(rows: Sequence[Row]) -> str | None:
    """For each model, the mixture against the mean and the best of the single sets."""
    if not rows:
        return None
    with drawing(4.9, 0.33 * len(rows) + 1.3) as (figure, axes):
        y = np.arange(len(rows))
        axes.hlines(
            y,
            [row["mean_single"] for row in rows],
            [row["best"] for row in rows],
            color="#b8c2cc",
            linewidth=2,
        )
        for number, (key, label) in enumerate(
            (("mixture", "mixture"), ("best", "best single set"), ("mean_single", "mean of single sets"))
        ):
            axes.scatter(
                [row[key] for row in rows],
                y,
                color=COLOURS[number],
                marker=MARKERS[number],
                label=label,
                zorder=3,
            )
        axes.set_yticks(y, [short(row["model"]) for row in rows])
        axes.invert_yaxis()
        axes.set_xlabel("mean standardised gain")
        figure.legend(frameon=False, fontsize=7.5, ncols=3, loc="outside lower center")
        axes.set_title("The mixture of all sets")
        return inline(figure, "mixture", "Gain of the mixture against single sets")


def claim_effects(points: Sequence[tuple[str, str, float, float, float]]) -> str | None:
    """Standardised effects of claims with intervals, by what they became: (label, word, value, low, high)."""
    if not points:
        return None
    words = ("agrees", "differs", "depends on the baseline", "open")
    with drawing(7.4, 0.25 * len(points) + 1.1) as (figure, axes):
        for said in words:
            here = [(n, point) for n, point in enumerate(points) if point[1] == said]
            if here:
                _intervals(
                    axes,
                    [point[2] for _, point in here],
                    [(point[3], point[4]) for _, point in here],
                    np.array([n for n, _ in here], dtype=np.float64),
                    {"agrees": 2, "differs": 1, "open": 6}.get(said, 3),
                    said,
                )
        axes.set_yticks(range(len(points)), [short(point[0], 64) for point in points], fontsize=8)
        axes.invert_yaxis()
        axes.axvline(0, color=FAINT, linewidth=0.8)
        figure.legend(frameon=False, fontsize=7.5, ncols=4, loc="outside lower center")
        axes.set_xlabel("effect, 95 % interval")
        return inline(figure, "claims-figure", "Effect of each claim with its interval")


def _intervals(
    axes: Axes,
    values: Sequence[float],
    ends: Sequence[tuple[float, float]],
    y: Floats,
    colour: int,
    label: str,
) -> None:
    axes.hlines(y, [low for low, _ in ends], [high for _, high in ends], color=COLOURS[colour], linewidth=1.6)
    axes.scatter(values, y, s=22, color=COLOURS[colour], marker=MARKERS[colour], label=label, zorder=3)


def _p(p: float) -> str:
    return f" p {p_text(p)} "
