"""The sections of the page, in the order of the paper: faults, gains, agreement, structure, factors, transfer."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from sftlab.analysis import agreement
from sftlab.analysis.components import components_needed
from sftlab.analysis.gains import BASELINE_FREE, RAW, STANDARDISED, TREATMENTS
from sftlab.reporting.section import Section, present
from sftlab.reporting.table import NOTHING, Entry, Row, Table
from sftlab.reporting.text import count, listed, number, percent
from sftlab.studies.survey.compare import Comparison
from sftlab.studies.survey.report import figures
from sftlab.studies.survey.tables import set_lengths

Rows = Sequence[Mapping[str, Any]]


def sections(comparison: Comparison) -> list[Section]:
    """All sections for which the table has something."""
    makers: tuple[Callable[[Comparison], Section | None], ...] = (
        _faults,
        _gains,
        _by_model,
        _agreement,
        _structure,
        _variance,
        _length,
        _methods,
        _sizes_and_epochs,
        _mixtures,
        _transfer,
        _beyond,
    )
    return present(*(make(comparison) for make in makers))


def _faults(comparison: Comparison) -> Section:
    tables = comparison.tables
    shown = [
        _table("Copied baselines", "base model", tables["copied_baselines"], "first",
               {"second": "and", "equal": "equal", "compared": "of", "first_row": "row", "second_row": "and row"}),
        _table("Scores below chance", "benchmark", tables["below_chance"], "benchmark",
               {"chance": "chance", "scores": "scores", "share_below": "below", "share_below_base": "of base models",
                "share_clearly_below": "clearly below"}, shares=True,
               note="Clearly below: lower than guessing scores in 999 of 1,000 cases."),
        _table("Missing scores", "model", tables["missing_scores"], "model",
               {"method": "method", "runs": "runs", "benchmarks": "benchmarks"}),
        _table("Missing runs", "model", tables["missing_runs"], "model",
               {"data": "training set", "method": "method", "size": "size", "epoch": "epoch", "schedule": "schedule"}),
        _table("Totals and the mean of their parts", "total", tables["totals"], "benchmark",
               {"parts": "parts", "largest_gap": "largest gap"}, digits=2),
    ]
    found = present(*shown)
    see = "Nothing was found." if not found else "Found without being asked."
    if not tables["below_chance"]:
        see += " No chance level is known; give some with --about to find scores below chance."
    if comparison.rare:
        see += f" Less than half of the runs have {listed(list(comparison.rare))}, which no grid uses."
    return Section("faults", "What is wrong with the table", see, tables=found,
                   data=("copied_baselines", "below_chance", "missing_scores", "missing_runs", "totals"))


def _gains(comparison: Comparison) -> Section:
    rows = sorted(comparison.tables["sets"], key=lambda row: row["rank"])
    survey = comparison.survey
    see = (
        f"From {rows[0]['data']} ({_signed(rows[0]['standardised'])} standard deviations on average) to "
        f"{rows[-1]['data']} ({_signed(rows[-1]['standardised'])}). The colour compares sets on one benchmark; the "
        "numbers are raw gains in the units of each benchmark."
    )
    entries = [
        Row(
            row["data"],
            [
                Entry(_signed(row["standardised"]), f"[{_signed(row['standardised_low'])}, {_signed(row['standardised_high'])}]",
                      tone=max(-1.0, min(1.0, row["standardised"]))),
                Entry(_p(row["standardised_p"])),
                Entry(_signed(row["baseline_free"]), f"[{_signed(row['baseline_free_low'])}, {_signed(row['baseline_free_high'])}]",
                      tone=max(-1.0, min(1.0, row["baseline_free"]))),
                Entry(_p(row["baseline_free_p"])),
                Entry(number(row["standardised_detectable"], 2)),
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
        note="Intervals: 95 %, cluster bootstrap over models; p: sign flips of the models. Baseline-free gains compare a set with the mean of all sets.",
    )
    return Section("gains", "Gains (Figure 2a)", see, [figures.mean_gain_map(survey), figures.set_effects(rows)],
                   [table], data=("mean_gains", "sets", "gains"))


def _by_model(comparison: Comparison) -> Section:
    survey = comparison.survey
    spread = survey.gains[STANDARDISED].mean(axis=(1, 2))
    order = np.argsort(-spread)
    first, last = survey.grid.models[order[0]], survey.grid.models[order[-1]]
    see = (
        f"{first} gains most ({_signed(spread[order[0]])} standard deviations over all sets and benchmarks), "
        f"{last} least ({_signed(spread[order[-1]])}); this average depends on the baselines."
    )
    return Section("models", "Gains by model (Figure 2b)", see, figures.model_gain_maps(survey), small=True, data=("gains",))


def _agreement(comparison: Comparison) -> Section:
    survey, rows = comparison.survey, comparison.tables["components"]
    raw = agreement.lower_triangle(agreement.model_correlations(survey.gains[RAW]))
    free = agreement.lower_triangle(agreement.model_correlations(survey.gains[BASELINE_FREE]))
    needed = {
        name: components_needed([row["explained"] for row in rows if row["treatment"] == name])
        for name in (RAW, BASELINE_FREE)
    }
    see = (
        f"Gains of two models correlate by {number(float(np.nanmean(raw)), 2)} on average, baseline-free by "
        f"{number(float(np.nanmean(free)), 2)}. {count(needed[RAW], 'component')} explain over 90 % of the raw gains, "
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
    plots = [figures.agreement_map(survey, RAW), figures.agreement_map(survey, BASELINE_FREE), figures.component_curves(rows)]
    return Section("agreement", "Agreement of models (Figures 2c, 2d)", see, plots, [table], data=("agreement", "components"))


def _structure(comparison: Comparison) -> Section:
    survey, tests = comparison.survey, comparison.tables["structure_tests"]
    parts = [
        f"{row['treatment']} t = {number(row['t'], 1)} (p {row['p']:.2g})" for row in tests
    ]
    see = (
        "Do models agree on how benchmarks relate more than on how training sets do? The paired t-test over pairs of "
        f"models, which takes them as independent: {listed(parts)}. Above the dashed line a pair agrees more on benchmarks."
    )
    table = Table(
        "Mean r between models of the two structures",
        "gains",
        ["benchmarks", "sets", "t", "p"],
        [
            Row(row["treatment"], [Entry(number(row[key], 2)) for key in ("benchmarks", "sets", "t")] + [Entry(f"{row['p']:.2g}")])
            for row in tests
        ],
    )
    grid = survey.grid
    plots = [
        figures.inner_map(agreement.benchmark_correlations(survey.gains[RAW]), grid.benchmarks,
                          "r between benchmarks, mean over models", "benchmark-pairs"),
        figures.inner_map(agreement.set_correlations(survey.gains[RAW]), grid.sets,
                          "r between training sets, mean over models", "set-pairs"),
        figures.structure_points(comparison.tables["structure"]),
    ]
    return Section("structure", "Benchmarks and training sets (Figure 3)", see, plots, [table],
                   data=("benchmark_pairs", "set_pairs", "structure", "structure_tests"))


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
    values = [row["r"] for row in rows[:-1]]
    see = f"r is {number(min(values), 2)} to {number(max(values), 2)} by model, {number(rows[-1]['r'], 2)} for the mean of the models."
    table = _table("Length and gain", "model", rows, "model",
                   {"r": "r", "r_log_length": "of log length", "r_raw_gain": "with raw gains"}, digits=2)
    return Section("length", "Length of the examples (Figure 4b)", see, [figures.length_points(comparison.survey, lengths)],
                   present(table), data=("lengths",))


def _methods(comparison: Comparison) -> Section | None:
    rows = comparison.tables["methods"]
    if not rows:
        return None
    first, second = rows[0]["first"], rows[0]["second"]
    rows = [row for row in rows if (row["first"], row["second"]) == (first, second)]
    better = [row["benchmark"] for row in rows if row["p_over_models"] < 0.05 and row["difference"] > 0]
    worse = [row["benchmark"] for row in rows if row["p_over_models"] < 0.05 and row["difference"] < 0]
    see = (
        f"{first} is better than {second} on {listed(better) or 'no benchmark'}, worse on "
        f"{listed(worse) or 'none'} (p < 0.05 over models, uncorrected)."
    )
    similar = [row for row in comparison.tables["method_gains"] if (row["first"], row["second"]) == (first, second)]
    table = _table(f"Gains of {first} and {second}", "model", similar, "model",
                   {"r": "r", "size_first": f"size, {first}", "size_second": f"size, {second}"}, digits=2,
                   note="Size: mean absolute standardised gain.")
    return Section("methods", f"Methods: {first} and {second} (section 4.4)", see, present(figures.method_bars(rows)),
                   present(table), data=("methods", "method_gains"))


def _sizes_and_epochs(comparison: Comparison) -> Section | None:
    sizes, epochs = comparison.tables["sizes"], comparison.tables["epochs"]
    if not sizes and not epochs:
        return None
    see = []
    if sizes:
        first, last = sizes[0], sizes[-1]
        see.append(
            f"{last['first']} less {last['second']}: {_signed(first['difference'])} standard deviations at epoch "
            f"{first['epoch']:g}, {_signed(last['difference'])} at epoch {last['epoch']:g}; better in "
            f"{percent(last['share_better'], 0)} of the cells at the end."
        )
    groups: dict[str, dict[str, list[tuple[float, float]]]] = {
        key: defaultdict(list) for key in ("gain", "step_to_next", "distance_to_mean")
    }
    for row in epochs:
        for key, lines in groups.items():
            if row[key] is not None:
                lines[f"{row['condition']}, {row['sets']}"].append((row["epoch"], row[key]))
    if epochs:
        see.append("Steps are mean changes of a score from an epoch to the next; distances are from a set's scores to the mean of all sets.")
    differences: dict[str, list[tuple[float, float]]] = defaultdict(list)
    for row in sizes:
        differences[f"{row['first']} less {row['second']}"].append((row["epoch"], row["difference"]))
    plots = present(
        figures.lines(differences, "epoch", "difference (sd)", "Sizes", "sizes"),
        figures.lines(groups["gain"], "epoch", "mean standardised gain", "Gain by epoch", "epoch-gain"),
        figures.lines(groups["step_to_next"], "epoch", "step to the next (sd)", "Steps by epoch", "epoch-steps"),
        figures.lines(groups["distance_to_mean"], "epoch", "distance (sd)", "Distance between training sets", "epoch-distances"),
    )
    best = _table("Best epoch on the mixture", "model", comparison.tables["best_epochs"], "model",
                  {"condition": "condition", "best_epoch": "best epoch", "gain_at_best": "gain there", "gain_at_last": "gain at the last"}, digits=2,
                  folded="Best epoch of each model on the mixture")
    return Section("epochs", "Sizes and epochs (section 4.4)", " ".join(see), plots, present(best), data=("sizes", "epochs", "best_epochs"))


def _mixtures(comparison: Comparison) -> Section | None:
    rows, left = comparison.tables["mixtures"], comparison.tables["leave_one_out"]
    if not rows and not left:
        return None
    see = []
    if rows:
        ranks = sorted(row["rank"] for row in rows)
        best = sum(rank == 1 for rank in ranks)
        see.append(
            f"Among the {rows[0]['of']} ways to train, the mixture is rank {ranks[0]} to {ranks[-1]}; "
            f"it is the best for {count(best, 'model') if best else 'no model'}."
        )
    names = list(dict.fromkeys(f"{row['model']}, {row['method']}" for row in left))
    table = None
    if left:
        see.append("Contribution: the mixture of all less the mixture without the set, mean over benchmarks; one run each, so no interval.")
        by_set: dict[str, dict[str, float]] = defaultdict(dict)
        for row in left:
            by_set[row["data"]][f"{row['model']}, {row['method']}"] = row["contribution"]
        table = Table(
            "Leave-one-out: contribution of each set (standard deviations)", "training set", names,
            [
                Row(data, [Entry(_signed(values[name]), tone=max(-1.0, min(1.0, 4 * values[name]))) if name in values else NOTHING for name in names])
                for data, values in by_set.items()
            ],
        )
    ranks_table = _table("The mixture among single sets", "model", rows, "model",
                         {"mixture": "mixture", "best": "best single", "best_single": "which", "rank": "rank", "of": "of"}, digits=2)
    return Section("mixtures", "Mixtures", " ".join(see), present(figures.mixture_points(rows)), present(ranks_table, table),
                   data=("mixtures", "leave_one_out"))


def _transfer(comparison: Comparison) -> Section | None:
    rows, shots = comparison.tables["transfer"], comparison.tables["shots"]
    if not rows and not shots:
        return None
    see, table = [], None
    if rows:
        raw = [row["r"] for row in rows if row["treatment"] == RAW]
        see.append(f"r of gains is {number(min(raw), 2)} to {number(max(raw), 2)}, by the models' language and the pair.")
        names = list(dict.fromkeys(row["treatment"] for row in rows))
        pairs = list(dict.fromkeys((row["models"], row["second"], row["first"]) for row in rows))
        table = Table(
            "Correlation of gains and of scores by the models' language (Figure A.1)", "models, benchmarks", names,
            [
                Row(
                    f"{models}: {figures.short(one)}, {figures.short(other)}",
                    [
                        Entry(number(next(r["r"] for r in rows if (r["treatment"], r["models"], r["second"], r["first"]) == (name, models, one, other)), 2))
                        for name in names
                    ],
                )
                for models, one, other in pairs
            ],
        )
    forms = _table("The same benchmark with and without examples in the prompt", "zero-shot", shots, "zero_shot",
                   {"few_shot": "few-shot", "gain_zero_shot": "gain, zero-shot", "gain_few_shot": "gain, few-shot", "r": "r of gains",
                    "base_zero_shot": "base, zero-shot", "base_few_shot": "base, few-shot"}, digits=2)
    if shots:
        changes = sum(row["sign_changes"] for row in shots)
        see.append(f"In {changes} of {len(shots)} pairs of forms the mean gain changes its sign with the examples shown.")
    return Section("transfer", "Languages and forms (Figure A.1)", " ".join(see), tables=present(table, forms), data=("transfer", "shots"))


def _beyond(comparison: Comparison) -> Section:
    rows = [
        Row(one.says, [Entry(one.where), Entry(one.why)])
        for one in comparison.published.statements
        if one.status != "computed"
    ]
    table = Table("Statements that scores do not decide", "statement", ["where", "why"], rows)
    return Section("beyond", "What scores do not tell", "These need weights, texts or likelihoods; a survey that sftlab runs measures them.", tables=[table])


def _table(
    caption: str,
    corner: str,
    rows: Rows,
    heading: str,
    columns: Mapping[str, str],
    digits: int = 1,
    shares: bool = False,
    **more: str,
) -> Table | None:
    """A table of some columns of rows; None without rows."""
    if not rows:
        return None
    return Table(
        caption,
        corner,
        list(columns.values()),
        [Row(str(row[heading]), [Entry(_text(row[key], digits, shares and key.startswith("share"))) for key in columns]) for row in rows],
        **more,
    )


def _text(value: Any, digits: int, share: bool) -> str:
    if value is None or (isinstance(value, float) and np.isnan(value)):
        return "–"
    if isinstance(value, bool | np.bool_):
        return "yes" if value else "no"
    if isinstance(value, float | np.floating):
        if share:
            return percent(float(value), 0)
        return f"{value:g}" if float(value).is_integer() else number(float(value), digits)
    return f"{value:,}" if isinstance(value, int) else str(value)


def _signed(value: float) -> str:
    text = number(float(value), 2)
    return text if text.startswith("−") or float(text) == 0 else f"+{text}"


def _p(p: float) -> str:
    return "< 0.001" if p < 0.001 else f"{p:.3f}"
