"""Maps of a survey as inline SVG: gains by set and benchmark, correlations between models, sets or benchmarks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from sftlab.analysis import agreement
from sftlab.analysis.gains import RAW, min_max_scaled
from sftlab.reporting.svg import FAINT, INK, drawing, inline
from sftlab.studies.survey.report.plain import signed
from sftlab.studies.survey.survey import Floats, Survey

if TYPE_CHECKING:
    from matplotlib.axes import Axes

DIVERGING = "RdBu"
TITLED = 4.2  # inches of a map that has room for its title, whatever the number of its cells


def short(name: str, length: int = 22) -> str:
    """A name that fits an axis: without what all benchmarks of a table end with, and not too long."""
    text = name.removesuffix("-0shot").removesuffix("-total")
    return text if len(text) <= length else f"{text[: length - 1]}…"


def mean_gain_map(survey: Survey) -> str:
    """Figure 2a: sets x benchmarks, colour scaled by benchmark to [-1, 1], the mean raw gain written in each cell."""
    raw = survey.gains[RAW].mean(axis=0)
    sets, benchmarks = survey.grid.sets, survey.grid.benchmarks
    scaled = min_max_scaled(raw)
    with drawing(max(TITLED + 1.2, 0.5 * len(benchmarks) + 2), 0.32 * len(sets) + 1.5) as (figure, axes):
        _map(axes, scaled, sets, benchmarks)
        for d in range(len(sets)):
            for b in range(len(benchmarks)):
                value = raw[d, b]
                text = f"{value:+.0f}" if abs(value) >= 0.995 else signed(value)
                axes.text(
                    b + 0.5,
                    d + 0.5,
                    text.replace("-", "−"),
                    ha="center",
                    va="center",
                    fontsize=7.5,
                    color=_on(scaled[d, b]),
                )
        axes.set_title("Mean gain over the models; colour scaled by benchmark")
        return inline(figure, "mean-gains", "Mean gain of each training set on each benchmark")


def model_gain_maps(survey: Survey) -> list[str]:
    """Figure 2b: for each model, sets x benchmarks, colour scaled by benchmark to [-1, 1]."""
    found = []
    for m, model in enumerate(survey.grid.models):
        with drawing(3.6, 2.7) as (figure, axes):
            _map(
                axes, min_max_scaled(survey.gains[RAW][m]), survey.grid.sets, survey.grid.benchmarks, size=6.5
            )
            axes.set_title(short(model, 30))
            found.append(inline(figure, f"gains-{m}", f"Gains of {model}"))
    return found


def agreement_map(survey: Survey, treatment: str) -> str:
    """Figure 2c: r between models with the dendrogram (average linkage on 1 - r)."""
    matrix = agreement.model_correlations(survey.gains[treatment])
    order, tree = agreement.leaf_order(matrix)
    names = [survey.grid.models[m] for m in order]
    size = 0.33 * len(names)
    with drawing(max(TITLED, size + 2.6), size + 2.2) as (figure, axes):
        axes.remove()
        top, main = figure.subplots(2, 1, height_ratios=[0.6, size + 1], sharex=False)
        _dendrogram(top, tree, len(names))
        _map(main, matrix[np.ix_(order, order)], names, names, size=7.5)
        for i in range(len(names)):
            for j in range(len(names)):
                value = matrix[order[i], order[j]]
                if i != j and np.isfinite(value):
                    text = f"{value:.2f}".replace("0.", ".", 1).replace("-", "−")
                    main.text(
                        j + 0.5, i + 0.5, text, ha="center", va="center", fontsize=6.2, color=_on(value)
                    )
        top.set_title(f"r between models, gains {treatment}")
        return inline(figure, f"agreement-{treatment}", f"Correlations between models, {treatment} gains")


def inner_map(matrices: Floats, names: Sequence[str], title: str, key: str) -> str:
    """Figures 3a and 3b: the mean over models of r between benchmarks, or between sets."""
    size = 0.3 * len(names)
    with drawing(max(TITLED + 0.4, size + 1.9), size + 1.5) as (figure, axes):
        known = np.isfinite(matrices).any(axis=0)  # a benchmark whose gains are constant has no r
        means = np.where(known, np.nanmean(np.where(known, matrices, 0.0), axis=0), np.nan)
        _map(axes, means, names, names, size=7)
        axes.set_title(title)
        return inline(figure, key, title)


def _map(
    axes: Axes,
    values: Floats,
    rows: Sequence[str],
    columns: Sequence[str],
    size: float = 8,
) -> None:
    """Values in [-1, 1] as coloured cells, cell (row, column) at (column + 1/2, row + 1/2); NaN stays blank."""
    axes.pcolormesh(values, cmap=DIVERGING, vmin=-1, vmax=1, edgecolors="white", linewidth=0.4)
    axes.set_xlim(0, len(columns))
    axes.set_ylim(len(rows), 0)
    axes.set_xticks(
        np.arange(len(columns)) + 0.5,
        [short(name) for name in columns],
        rotation=55,
        ha="right",
        fontsize=size,
        rotation_mode="anchor",
    )
    axes.set_yticks(np.arange(len(rows)) + 0.5, [short(name) for name in rows], fontsize=size)
    axes.grid(False)


def _dendrogram(axes: Axes, tree: Floats, leaves: int) -> None:
    from scipy.cluster.hierarchy import dendrogram

    found = dendrogram(tree, no_plot=True)
    for xs, ys in zip(found["icoord"], found["dcoord"], strict=True):
        axes.plot(np.asarray(xs) / 10, ys, color=FAINT, linewidth=1)
    axes.set_xlim(0, leaves)
    axes.axis("off")


def _on(value: float) -> str:
    return "white" if abs(value) > 0.55 else INK
