"""The sections of the page, in the order of the paper: faults, gains, agreement, structure, factors, transfer."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from sftlab.analysis import agreement
from sftlab.analysis.components import components_needed
from sftlab.analysis.effects import mean_test
from sftlab.analysis.gains import BASELINE_FREE, RAW, STANDARDISED, TREATMENTS
from sftlab.reporting.section import Section, present
from sftlab.reporting.table import NOTHING, Entry, Row, Table
from sftlab.reporting.text import count, listed, number, percent
from sftlab.studies.survey.compare import Comparison
from sftlab.studies.survey.report import (
    factor_sections,
    figures,
    geometry_sections,
    layer_sections,
    map_sections,
    maps,
    measured_sections,
    restore_section,
)
from sftlab.studies.survey.report.champion_section import CHAMPIONS, champions
from sftlab.studies.survey.report.cost_section import costs
from sftlab.studies.survey.report.plain import p_text, plain_table, signed, with_words
from sftlab.studies.survey.report.similarity_section import similarity
from sftlab.studies.survey.tables import set_lengths


def sections(comparison: Comparison) -> list[Section]:
    """All sections for which the table has something; faults come first in a table that others brought."""
    of_survey = CHAMPIONS in comparison.tables
    makers: tuple[Callable[[Comparison], Section | None], ...] = (
        *(() if of_survey else (_faults,)),
        champions,
        _gains,
        _by_model,
        _agreement,
        _structure,
        _variance,
        _length,
        measured_sections.perplexity,
        similarity,
        measured_sections.layers,
        layer_sections.layer_maps,
        geometry_sections.geometry,
        geometry_sections.states,
        map_sections.model_map,
        factor_sections.methods,
        factor_sections.sizes_and_epochs,
        factor_sections.mixtures,
        factor_sections.transfer,
        measured_sections.form,
        restore_section.restoration,
        *((_faults, costs) if of_survey else (factor_sections.beyond,)),
    )
    return present(*(make(comparison) for make in makers))


def _faults(comparison: Comparison) -> Section:
    tables = comparison.tables
    copies = plain_table(
        "Copied baselines",
        "base model",
        tables["copied_baselines"],
        "first",
        {"second": "and", "equal": "equal", "compared": "of", "first_row": "row", "second_row": "and row"},
    )
    below = plain_table(
        "Scores below chance",
        "benchmark",
        tables["below_chance"],
        "benchmark",
        {
            "chance": "chance",
            "scores": "scores",
            "share_below": "below",
            "share_below_base": "of base models",
            "share_clearly_below": "clearly below",
        },
    )
    scores = {"method": "method", "runs": "runs", "benchmarks": "benchmarks"}
    runs = {
        "data": "training set",
        "method": "method",
        "size": "size",
        "epoch": "epoch",
        "schedule": "schedule",
    }
    found = present(
        copies,
        with_words(below, note="Clearly below: lower than guessing scores in 999 of 1,000 cases."),
        plain_table("Missing scores", "model", tables["missing_scores"], "model", scores),
        plain_table("Missing runs", "model", tables["missing_runs"], "model", runs),
        plain_table(
            "Totals and the mean of their parts",
            "total",
            tables["totals"],
            "benchmark",
            {"parts": "parts", "largest_gap": "largest gap"},
            digits=2,
        ),
    )
    see = "Every table is checked for these faults." if found else "Nothing was found."
    if not tables["below_chance"] and CHAMPIONS not in tables:
        see += (
            " No chance level is known; give some (--about, or `about` of a survey) to find scores below it."
        )
    if comparison.rare:
        see += f" Less than half of the runs have {listed(list(comparison.rare))}, which no grid uses."
    names = ("copied_baselines", "below_chance", "missing_scores", "missing_runs", "totals")
    return Section("faults", "What is wrong with the table", see, tables=found, data=names)


def _gains(comparison: Comparison) -> Section:
    rows = sorted(comparison.tables["sets"], key=lambda row: row["rank"])
    survey = comparison.survey
    see = (
        f"From {rows[0]['data']} ({signed(rows[0]['standardised'])} standard deviations on average) to "
        f"{rows[-1]['data']} ({signed(rows[-1]['standardised'])}). The colour compares sets on one benchmark; the "
        "numbers are raw gains in the units of each benchmark."
    )
    entries = [
        Row(
            row["data"],
            [
                Entry(
                    signed(row["standardised"]),
                    f"[{signed(row['standardised_low'])}, {signed(row['standardised_high'])}]",
                    tone=max(-1.0, min(1.0, row["standardised"])),
                ),
                Entry(p_text(row["standardised_p"])),
                Entry(
                    signed(row["baseline_free"]),
                    f"[{signed(row['baseline_free_low'])}, {signed(row['baseline_free_high'])}]",
                    tone=max(-1.0, min(1.0, row["baseline_free"])),
                ),
                Entry(p_text(row["baseline_free_p"])),
                NOTHING
                if row["standardised_detectable"] is None
                else Entry(number(row["standardised_detectable"], 2)),
                Entry(percent(row["positive_cells"], 0)),
            ],
        )
        for row in rows
    ]
    table = Table(
        "Mean gain of each training set in standard deviations",
        "training set",
        ["gain", "p (Holm)", "baseline-free", "p (Holm)", "detectable", "cells above 0"],
        entries,
        note=f"Intervals: 95 %, cluster bootstrap over models; p: {mean_test(len(survey.grid.models), 'models')}. "
        "Baseline-free gains compare a set with the mean of all sets.",
    )
    return Section(
        "gains",
        "Gains (Figure 2a)",
        see,
        [maps.mean_gain_map(survey), figures.set_effects(rows)],
        [table],
        data=("mean_gains", "sets", "gains"),
    )


def _by_model(comparison: Comparison) -> Section:
    survey = comparison.survey
    spread = survey.gains[STANDARDISED].mean(axis=(1, 2))
    order = np.argsort(-spread)
    first, last = survey.grid.models[order[0]], survey.grid.models[order[-1]]
    see = (
        f"{first} gains most ({signed(spread[order[0]])} standard deviations over all sets and benchmarks), "
        f"{last} least ({signed(spread[order[-1]])}); this average depends on the baselines."
    )
    return Section(
        "models",
        "Gains by model (Figure 2b)",
        see,
        maps.model_gain_maps(survey),
        small=True,
        data=("gains",),
    )


def _agreement(comparison: Comparison) -> Section:
    survey, rows = comparison.survey, comparison.tables["components"]
    raw = agreement.lower_triangle(agreement.model_correlations(survey.gains[RAW]))
    free = agreement.lower_triangle(agreement.model_correlations(survey.gains[BASELINE_FREE]))
    needed = {
        name: components_needed([row["explained"] for row in rows if row["treatment"] == name])
        for name in (RAW, BASELINE_FREE)
    }
    see = (
        f"Gains of two models correlate by {_mean_r(raw)} on average, baseline-free by {_mean_r(free)}. "
        f"{count(needed[RAW], 'component')} explain over 90 % of the raw gains, "
        f"{needed[BASELINE_FREE]} of the baseline-free ones; the bands show what shuffled sets would explain."
    )
    table = Table(
        "Cumulative explained variance (%)",
        "components",
        [name for treatment in TREATMENTS for name in (treatment, "shuffled")],
        [
            Row(
                str(k),
                [
                    Entry(number(100 * row[key], 1))
                    for treatment in TREATMENTS
                    for row in rows
                    if (row["treatment"], row["components"]) == (treatment, k)
                    for key in ("explained", "null")
                ],
            )
            for k in sorted({row["components"] for row in rows})
        ],
        folded="Explained variance in all treatments",
    )
    plots = [
        maps.agreement_map(survey, RAW),
        maps.agreement_map(survey, BASELINE_FREE),
        figures.component_curves(rows),
    ]
    return Section(
        "agreement",
        "Agreement of models (Figures 2c, 2d)",
        see,
        plots,
        [table],
        data=("agreement", "components"),
    )


def _mean_r(values: npt.NDArray[np.float64]) -> str:
    """Mean of the correlations that are defined, as text."""
    known = values[np.isfinite(values)]
    return number(float(known.mean()), 2) if known.size else "–"


def _structure(comparison: Comparison) -> Section:
    survey, tests = comparison.survey, comparison.tables["structure_tests"]
    parts = [f"{row['treatment']} t = {number(row['t'], 1)} (p {p_text(row['p'])})" for row in tests]
    see = (
        "Do models agree on how benchmarks relate more than on how training sets do? The paired t-test over pairs of "
        f"models, which takes them as independent: {listed(parts)}. Above the dashed line a pair agrees more on "
        "benchmarks."
    )
    table = Table(
        "Mean r between models of the two structures",
        "gains",
        ["benchmarks", "sets", "t", "p"],
        [
            Row(
                row["treatment"],
                [Entry(number(row[key], 2)) for key in ("benchmarks", "sets", "t")]
                + [Entry(p_text(row["p"]))],
            )
            for row in tests
        ],
    )
    grid = survey.grid
    plots = [
        maps.inner_map(
            agreement.benchmark_correlations(survey.gains[RAW]),
            grid.benchmarks,
            "r between benchmarks, mean over models",
            "benchmark-pairs",
        ),
        maps.inner_map(
            agreement.set_correlations(survey.gains[RAW]),
            grid.sets,
            "r between training sets, mean over models",
            "set-pairs",
        ),
        figures.structure_points(comparison.tables["structure"]),
    ]
    return Section(
        "structure",
        "Benchmarks and training sets (Figure 3)",
        see,
        plots,
        [table],
        data=("benchmark_pairs", "set_pairs", "structure", "structure_tests"),
    )


def _variance(comparison: Comparison) -> Section:
    rows = comparison.tables["variance"]
    shares = {row["part"]: row["share"] for row in rows if row["treatment"] == STANDARDISED}
    see = (
        f"Of the standardised gains, {percent(shares['model x benchmark'], 0)} is what a model gains on a benchmark "
        f"whatever the set, which holds the baselines; {percent(shares['data'], 0)} is the set alone and "
        f"{percent(shares['data x benchmark'], 0)} what a set does to a benchmark in all models."
    )
    return Section("variance", "What gains depend on", see, [figures.variance_bars(rows)], data=("variance",))


def _length(comparison: Comparison) -> Section | None:
    rows, lengths = comparison.tables["lengths"], set_lengths(comparison.survey)
    if not rows or lengths is None:
        return None
    values = [row["r"] for row in rows[:-1] if np.isfinite(row["r"])]
    see = "r is not defined: no model's gain varies over the sets."
    if values:
        mean = number(rows[-1]["r"], 2)
        see = f"r is {number(min(values), 2)} to {number(max(values), 2)} by model, {mean} for the mean of the models."
    table = plain_table(
        "Length and gain",
        "model",
        rows,
        "model",
        {"r": "r", "r_log_length": "of log length", "r_raw_gain": "with raw gains"},
        digits=2,
    )
    return Section(
        "length",
        "Length of the examples (Figure 4b)",
        see,
        [figures.length_points(comparison.survey, lengths)],
        present(table),
        data=("lengths", "length_points"),
    )
