"""The sections on what a survey measured besides scores: weights by layer, form and accuracy."""

from __future__ import annotations

from math import isnan

from sftlab.analysis.effects import mean_test
from sftlab.reporting.section import Section, present
from sftlab.reporting.table import Entry, Row, Table
from sftlab.reporting.text import count, number
from sftlab.studies.survey.compare import Comparison
from sftlab.studies.survey.measure_tables import PREDICTORS
from sftlab.studies.survey.report import measured_figures, module_figures
from sftlab.studies.survey.report.plain import Rows, p_text, plain_table, signed


def perplexity(comparison: Comparison) -> Section | None:
    """Figure 4a, with what else predicts gains."""
    rows, predictions = comparison.tables["perplexities"], comparison.tables["predictions"]
    if not rows:
        return None
    see = "Perplexity is not correlated with gains: both must vary over three or more sets under every base."
    if first := next((row for row in predictions if row["predictor"] == "response"), None):
        see = (
            f"The logarithm of the perplexity of the responses correlates with the mean gain by r = "
            f"{number(first['r'], 2)} ({number(first['lowest'], 2)} to {number(first['highest'], 2)} by model, p "
            f"{p_text(first['p'])} over {first['sets']} sets). It is measured before anything is trained."
        )
    table = Table(
        "r of the logarithm of a predictor with the mean standardised gain, over sets",
        "predictor",
        ["mean r", "lowest", "highest", "p"],
        [
            Row(
                PREDICTORS[row["predictor"]],
                [Entry(number(row[key], 2)) for key in ("r", "lowest", "highest")]
                + [Entry(p_text(row["p"]))],
            )
            for row in predictions
        ],
        note="Mean through Fisher's z. p: the sets are shuffled, the same way in all models.",
    )
    plots = [measured_figures.perplexity_points(rows)]
    return Section(
        "perplexity",
        "Perplexity before training (Figure 4a)",
        see,
        plots,
        present(table if predictions else None, _by_benchmark(comparison.tables["predictions_by_benchmark"])),
        data=("perplexities", "predictions", "predictions_by_benchmark"),
    )


def _by_benchmark(rows: Rows) -> Table | None:
    """The same correlation with the gain on each benchmark."""
    if not rows:
        return None
    return Table(
        "r of the logarithm of the response perplexity with the gain on each benchmark, over sets",
        "benchmark",
        ["mean r", "lowest", "highest", "p", "bases"],
        [
            Row(
                row["benchmark"],
                [
                    *(Entry(number(row[key], 2)) for key in ("r", "lowest", "highest")),
                    Entry(p_text(row["p"])),
                    Entry(str(row["models"])),
                ],
            )
            for row in rows
        ],
        note="Bases whose gains on the benchmark do not vary over sets are left out. p: not corrected.",
        folded=count(len(rows), "benchmark"),
    )


def layers(comparison: Comparison) -> Section | None:
    """Figures 5a to 5c."""
    rows = comparison.tables["layers"]
    if not rows:
        return None
    known = [row for row in rows if not isnan(row["r_with_gain"])]
    most = max(rows, key=lambda row: row["relative_change"])
    see = f"Weights change most at position {number(most['position'], 2)} (0 is the input). "
    if known:
        strongest = max(known, key=lambda row: abs(row["r_with_gain"]))
        beyond = [row for row in known if not row["null_low"] <= row["r_with_gain"] <= row["null_high"]]
        see += (
            f"The change correlates with the mean gain of a set by r = {number(strongest['r_with_gain'], 2)} (mean of "
            f"bases; pooled {number(strongest['r_pooled'], 2)}) at position {number(strongest['position'], 2)}; at "
            f"{len(beyond)} of {len(rows)} positions the mean is outside of what shuffled sets give (grey band)."
        )
    else:
        see += "It is not correlated with gains: the mean gains of a base do not vary over its sets."
    modules = comparison.tables["modules"]
    plots = [
        measured_figures.layer_curves(rows, comparison.tables["layers_by_model"]),
        module_figures.change_and_gain(comparison.tables["layer_points"]),
        measured_figures.layer_agreement(rows),
        module_figures.module_lines(modules),
    ]
    return Section(
        "layers",
        "Change of weights by layer and module (Figures 5a to 5c)",
        see,
        present(*plots),
        present(module_figures.module_table(modules)),
        data=("layers", "layers_by_model", "layer_points", "modules"),
    )


def form(comparison: Comparison) -> Section | None:
    """Form of answers, and accuracy given form, which scores alone do not separate."""
    rows = comparison.tables["form_parts"]
    if not rows:
        return None
    ordered = sorted(rows, key=lambda row: -row["gain"])
    models = len(comparison.survey.grid.models)
    whole = sum(row["gain"] for row in rows) / len(rows)
    of_form = sum(row["form"] for row in rows) / len(rows)
    see = (
        f"The mean gain is {signed(whole)} points, of which {signed(of_form)} come from more answers in the asked form "
        f"and {signed(whole - of_form)} from more right answers among those in the form."
    )
    parts = Table(
        "Gain of each training set in points, and its two parts",
        "training set",
        ["gain", "form", "p", "accuracy given form", "p"],
        [
            Row(
                row["data"],
                [
                    Entry(signed(row["gain"])),
                    Entry(signed(row["form"]), f"[{signed(row['form_low'])}, {signed(row['form_high'])}]"),
                    Entry(p_text(row["form_p"])),
                    Entry(
                        signed(row["accuracy"]),
                        f"[{signed(row['accuracy_low'])}, {signed(row['accuracy_high'])}]",
                    ),
                    Entry(p_text(row["accuracy_p"])),
                ],
            )
            for row in ordered
        ],
        note=f"Intervals: 95 %, cluster bootstrap over models; p: {mean_test(models, 'models')}, not corrected. Where "
        "no answer of the base is in the form, the whole gain counts as form.",
    )
    shares = plain_table(
        "Answers in the asked form, and right ones among them, means over models and sets",
        "benchmark",
        comparison.tables["forms"],
        "benchmark",
        {
            "share_in_form_base": "in form, base",
            "share_in_form": "in form, tuned",
            "share_right_given_form_base": "right given form, base",
            "share_right_given_form": "right given form, tuned",
            "share_likeliest_base": "likeliest choice, base",
            "share_likeliest": "likeliest choice, tuned",
        },
    )
    plots = [measured_figures.form_bars(ordered)]
    return Section(
        "form", "Form and accuracy", see, plots, present(parts, shares), data=("form_parts", "forms")
    )
