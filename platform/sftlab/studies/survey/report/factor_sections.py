"""Sections on the other factors of fine-tuning: methods, sizes, epochs, mixtures, languages, forms."""

from __future__ import annotations

from collections import defaultdict

from sftlab.analysis.gains import RAW
from sftlab.reporting.section import Section, present
from sftlab.reporting.table import NOTHING, Entry, Row, Table
from sftlab.reporting.text import count, listed, number, percent
from sftlab.studies.survey.compare import Comparison
from sftlab.studies.survey.report import figures
from sftlab.studies.survey.report.maps import short
from sftlab.studies.survey.report.plain import Rows, plain_table, signed, with_words

Lines = dict[str, list[tuple[float, float]]]


def methods(comparison: Comparison) -> Section | None:
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
    similar = [
        row for row in comparison.tables["method_gains"] if (row["first"], row["second"]) == (first, second)
    ]
    sizes = {"r": "r", "size_first": f"size, {first}", "size_second": f"size, {second}"}
    gains = plain_table(f"Gains of {first} and {second}", "model", similar, "model", sizes, digits=2)
    table = with_words(gains, note="Size: mean absolute standardised gain.")
    return Section(
        "methods",
        f"Methods: {first} and {second} (section 4.4)",
        see,
        present(figures.method_bars(rows)),
        present(table),
        data=("methods", "method_gains"),
    )


def sizes_and_epochs(comparison: Comparison) -> Section | None:
    sizes, epochs = comparison.tables["sizes"], comparison.tables["epochs"]
    if not sizes and not epochs:
        return None
    see = []
    if sizes:
        first, last = sizes[0], sizes[-1]
        at = [
            f"{signed(row['difference'])} standard deviations at epoch {row['epoch']:g}"
            for row in (first, last)
        ]
        see.append(
            f"{last['first']} less {last['second']}: {', '.join(dict.fromkeys(at))}; better in "
            f"{percent(last['share_better'], 0)} of the cells at the end."
        )
    if epochs:
        see.append(
            "Steps are mean changes of a score from an epoch to the next; distances are from a set's scores to "
            "the mean of all sets."
        )
    best = plain_table(
        "Best epoch on the mixture",
        "model",
        comparison.tables["best_epochs"],
        "model",
        {
            "condition": "condition",
            "best_epoch": "best epoch",
            "gain_at_best": "gain there",
            "gain_at_last": "gain at the last",
        },
        digits=2,
    )
    return Section(
        "epochs",
        "Sizes and epochs (section 4.4)",
        " ".join(see),
        _epoch_lines(sizes, epochs),
        present(with_words(best, folded="Best epoch of each model on the mixture")),
        data=("sizes", "epochs", "best_epochs"),
    )


def _epoch_lines(sizes: Rows, epochs: Rows) -> list[str]:
    """Lines over the epochs: difference of sizes, gain, steps, distances."""
    groups: dict[str, Lines] = {
        key: defaultdict(list) for key in ("difference", "gain", "step_to_next", "distance_to_mean")
    }
    for row in sizes:
        name = f"{row['first']} less {row['second']}"
        groups["difference"][name].append((row["epoch"], row["difference"]))
    for row in epochs:
        for key in ("gain", "step_to_next", "distance_to_mean"):
            if row[key] is not None:
                groups[key][f"{row['condition']}, {row['sets']}"].append((row["epoch"], row[key]))
    shown = (
        ("difference", "difference (sd)", "Sizes", "sizes-by-epoch"),
        ("gain", "mean standardised gain", "Gain by epoch", "gain-by-epoch"),
        ("step_to_next", "step to the next (sd)", "Steps by epoch", "steps-by-epoch"),
        ("distance_to_mean", "distance (sd)", "Distance between training sets", "distance-by-epoch"),
    )
    return present(*(figures.lines(groups[key], "epoch", y, title, name) for key, y, title, name in shown))


def mixtures(comparison: Comparison) -> Section | None:
    rows, left = comparison.tables["mixtures"], comparison.tables["leave_one_out"]
    if not rows and not left:
        return None
    see = []
    if rows:
        ranks = sorted(row["rank"] for row in rows)
        places = " to ".join(dict.fromkeys((str(ranks[0]), str(ranks[-1]))))
        best = sum(rank == 1 for rank in ranks)
        see.append(
            f"Among the {rows[0]['of']} ways to train, the mixture is rank {places}; "
            f"it is the best for {count(best, 'model') if best else 'no model'}."
        )
    names = list(dict.fromkeys(f"{row['model']}, {row['method']}" for row in left))
    table = None
    if left:
        see.append(
            "Contribution: the mixture of all less the mixture without the set, mean over benchmarks; one run "
            "each, so no interval."
        )
        by_set: dict[str, dict[str, float]] = defaultdict(dict)
        for row in left:
            by_set[row["data"]][f"{row['model']}, {row['method']}"] = row["contribution"]
        table = Table(
            "Leave-one-out: contribution of each set (standard deviations)",
            "training set",
            names,
            [
                Row(
                    data,
                    [
                        Entry(signed(values[name]), tone=max(-1.0, min(1.0, 4 * values[name])))
                        if name in values
                        else NOTHING
                        for name in names
                    ],
                )
                for data, values in by_set.items()
            ],
        )
    ranks_table = plain_table(
        "The mixture among single sets",
        "model",
        rows,
        "model",
        {"mixture": "mixture", "best": "best single", "best_single": "which", "rank": "rank", "of": "of"},
        digits=2,
    )
    return Section(
        "mixtures",
        "Mixtures",
        " ".join(see),
        present(figures.mixture_points(rows)),
        present(ranks_table, table),
        data=("mixtures", "leave_one_out"),
    )


def transfer(comparison: Comparison) -> Section | None:
    rows, shots = comparison.tables["transfer"], comparison.tables["shots"]
    if not rows and not shots:
        return None
    see = []
    if rows:
        raw = [row["r"] for row in rows if row["treatment"] == RAW]
        see.append(
            f"r of gains is {number(min(raw), 2)} to {number(max(raw), 2)}, by the models' language and the pair."
        )
    if shots:
        changes = sum(row["sign_changes"] for row in shots)
        see.append(
            f"In {changes} of {len(shots)} pairs of forms the mean gain changes its sign with the examples shown."
        )
    forms = plain_table(
        "The same benchmark with and without examples in the prompt",
        "zero-shot",
        shots,
        "zero_shot",
        {
            "few_shot": "few-shot",
            "gain_zero_shot": "gain, zero-shot",
            "gain_few_shot": "gain, few-shot",
            "r": "r of gains",
            "base_zero_shot": "base, zero-shot",
            "base_few_shot": "base, few-shot",
        },
        digits=2,
    )
    return Section(
        "transfer",
        "Languages and forms (Figure A.1)",
        " ".join(see),
        tables=present(_language_table(rows), forms),
        data=("transfer", "shots"),
    )


def _language_table(rows: Rows) -> Table | None:
    if not rows:
        return None
    names = list(dict.fromkeys(row["treatment"] for row in rows))
    by_pair: dict[str, dict[str, float]] = defaultdict(dict)
    for row in rows:
        pair = f"{row['models']}: {short(row['second'])}, {short(row['first'])}"
        by_pair[pair][row["treatment"]] = row["r"]
    return Table(
        "Correlation of gains and of scores by the models' language (Figure A.1)",
        "models, benchmarks",
        names,
        [Row(pair, [Entry(number(found[name], 2)) for name in names]) for pair, found in by_pair.items()],
    )


def beyond(comparison: Comparison) -> Section:
    rows = [
        Row(one.says, [Entry(one.where), Entry(one.why)])
        for one in comparison.published.statements
        if one.status != "computed"
    ]
    table = Table("Statements that scores do not decide", "statement", ["where", "why"], rows)
    return Section(
        "beyond",
        "What scores do not decide",
        "These need weights, texts or likelihoods; a survey that sftlab runs measures them.",
        tables=[table],
    )
