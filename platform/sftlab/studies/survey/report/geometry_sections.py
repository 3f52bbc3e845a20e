"""The section on the geometry of hidden states."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sftlab.analysis.effects import mean_test
from sftlab.reporting.section import Section, present
from sftlab.reporting.table import Entry, Row, Table
from sftlab.reporting.text import number
from sftlab.studies.survey.compare import Comparison
from sftlab.studies.survey.report.geometry_figures import (
    MOST_DRAWN,
    by_position,
    state_legend,
    state_points,
)
from sftlab.studies.survey.report.plain import Rows, p_text, plain_table, signed, with_words

TITLES = {
    "dimension": ("Intrinsic dimension", "dimension (GRIDE, n = 16)"),
    "clusters": ("Density peaks", "clusters"),
    "ari": ("Density peaks and sets", "adjusted Rand index"),
    "consistency": ("Neighbours of the same set", "share of nearest neighbours"),
}


def geometry(comparison: Comparison) -> Section | None:
    """Figures 5d, A.2 and A.3."""
    rows, layers = comparison.tables["geometry"], comparison.tables["geometry_layers"]
    if not rows:
        return None
    named = {name: [row for row in rows if row["quantity"] == name] for name in TITLES}
    plots = [by_position(name, here, layers, *TITLES[name]) for name, here in named.items() if here]
    consistency = plain_table(
        "Nearest neighbours from the same set, last layer",
        "set of the prompt",
        comparison.tables["geometry_consistency"],
        "data",
        {"share_base": "base", "share_tuned": "tuned"},
    )
    scales = plain_table(
        "Dimension of the last layer by scale",
        "nearer neighbour",
        comparison.tables["geometry_scales"],
        "neighbour",
        {"base": "base", "tuned": "tuned"},
        digits=2,
    )
    return Section(
        "geometry",
        "Geometry of hidden states (Figures 5d, A.2, A.3)",
        _see(named),
        plots,
        present(
            _differences(named), consistency, with_words(scales, note="GRIDE compares neighbours n and 2n.")
        ),
        data=("geometry", "geometry_layers", "geometry_consistency", "geometry_scales"),
    )


def states(comparison: Comparison) -> Section | None:
    """Figure A.4: a picture of each model, and what the colours mean."""
    rows = comparison.tables["state_map"]
    if not rows:
        return None
    sets = list(dict.fromkeys(row["prompt_of"] for row in rows))
    models: dict[tuple[str, str, str], list[Mapping[str, Any]]] = {}
    for row in rows:
        models.setdefault((row["model"], row["trained_on"], row["method"]), []).append(row)
    plots = [
        state_points(here, sets, f"{model}, {data}" if method else f"{model} (base)", f"states-{number}")
        for number, ((model, data, method), here) in enumerate(models.items())
    ]
    drawn = max(len(here) for here in models.values())
    some = f" A picture has at most {MOST_DRAWN} of {drawn:,} states." if drawn > MOST_DRAWN else ""
    return Section(
        "states",
        "Hidden states of the last layer (Figure A.4)",
        "Each picture is a t-SNE of one model's states after the last token of the prompts, coloured by the set "
        "that the prompt is from. Distances between groups mean little in such a picture; the table of nearest "
        f"neighbours above has the numbers.{some}",
        [state_legend(sets), *plots],
        data=("state_map",),
        small=True,
    )


def _see(named: dict[str, list[dict[str, object]]]) -> str:
    rows: Rows = named["dimension"]
    if not rows:
        return "There are too few distinct states for a dimension."
    last = rows[-1]
    interval = "" if last["low"] is None else f" [{signed(last['low'])}, {signed(last['high'])}]"
    return (
        f"Near the output the hidden states of prompts have dimension {number(last['base'], 2)} in base models and "
        f"{number(last['tuned'], 2)} in tuned ones, a difference of {signed(last['difference'])}{interval}. States are "
        "those of the last token of each prompt."
    )


def _differences(named: dict[str, list[dict[str, object]]]) -> Table | None:
    """Base and tuned at three positions."""
    rows = []
    for name, found in named.items():
        here: Rows = found
        for row in [here[at] for at in (0, len(here) // 2, -1)] if len(here) > 2 else here:
            ends = [] if row["low"] is None else [f"[{signed(row['low'])}, {signed(row['high'])}]"]
            rows.append(
                Row(
                    f"{TITLES[name][0]}, position {number(row['position'], 2)}",
                    [
                        Entry(number(row["base"], 2)),
                        Entry(number(row["tuned"], 2)),
                        Entry(signed(row["difference"]), below=ends),
                        Entry("–" if row["p"] is None else p_text(row["p"])),
                    ],
                )
            )
    if not rows:
        return None
    bases = max(int(str(row["bases"])) for found in named.values() for row in found)
    return Table(
        "Base models and models tuned from them",
        "quantity",
        ["base", "tuned", "difference", "p"],
        rows,
        note=f"Means over bases. Intervals: 95 %, bootstrap over bases; p: {mean_test(bases, 'bases')}, not corrected.",
    )
