"""The section on restored models: what restoration gains on the benchmarks, and whether that is form or knowledge."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from sftlab.reporting.section import Section, present
from sftlab.reporting.svg import FAINT, drawing, inline
from sftlab.reporting.table import Entry, Row, Table
from sftlab.reporting.text import count, number
from sftlab.studies.survey.compare import Comparison
from sftlab.studies.survey.report.figures import COLOURS, MARKERS
from sftlab.studies.survey.report.plain import p_text, plain_table, signed
from sftlab.studies.survey.restore_tables import DIFFERENCE, FORM, GAIN, KNOWLEDGE, answer

LABELS = {GAIN: "gain", FORM: "form", KNOWLEDGE: "knowledge (right given form)"}
WORDS = {
    "nothing": "Restoration is not shown to gain anything here.",
    "harm": "Restoration lowers the scores.",
    FORM: "What restoration repairs is form first.",
    KNOWLEDGE: "What restoration repairs is knowledge first.",
    "both": "Restoration repairs form and knowledge; neither part is shown to be larger.",
    "open": "Restoration gains; whether that is form or knowledge is open.",
}


def restoration(comparison: Comparison) -> Section | None:
    """Restoration ladders on the benchmarks (Table 5 of Ye et al. 2025)."""
    rows, ladders = comparison.tables["restorations"], comparison.tables["chosen_restorations"]
    if not rows:
        return None
    tests = comparison.tables["repaired"]
    how = (
        "A half of the questions of each benchmark chooses the percentage of every model, the other half judges it. "
        "Knowledge is the part of a gain that comes from more right answers among those in the asked form."
    )
    return Section(
        "restoration",
        "Restoration on the benchmarks: form or knowledge",
        f"{_answer(tests, len(ladders))} {how}",
        present(curves(rows)),
        present(_tests(tests), _by_percent(rows), _ladders(ladders)),
        data=("restorations", "chosen_restorations", "repaired"),
    )


def _answer(tests: Sequence[Mapping[str, Any]], ladders: int) -> str:
    if not tests:
        return "One model does not decide what restoration repairs: there is no interval."
    gain, difference = (_row(tests, part) for part in (GAIN, DIFFERENCE))
    if difference["detectable"] is None:
        return f"{WORDS[answer(tests)]} All {count(ladders, 'ladder')} gain {signed(gain['points'])} points."
    return (
        f"{WORDS[answer(tests)]} Over {count(ladders, 'ladder')} the gain is {_interval(gain)} points. The part of "
        f"form less that of knowledge is {_interval(difference)} points; a difference of "
        f"{number(difference['detectable'], 1)} is detectable."
    )


def _row(rows: Sequence[Mapping[str, Any]], part: str) -> Mapping[str, Any]:
    return next(row for row in rows if row["part"] == part)


def _interval(row: Mapping[str, Any]) -> str:
    return f"{signed(row['points'])} [{signed(row['low'])}, {signed(row['high'])}]"


def _tests(rows: Sequence[Mapping[str, Any]]) -> Table | None:
    if not rows:
        return None
    return Table(
        "Gain of the chosen percentages on the judging half, in points",
        "part",
        ["points", "p", "detectable"],
        [
            Row(
                row["part"],
                [
                    Entry(signed(row["points"]), f"[{signed(row['low'])}, {signed(row['high'])}]"),
                    Entry(p_text(row["p"])),
                    Entry("–" if row["detectable"] is None else number(row["detectable"], 1)),
                ],
            )
            for row in rows
        ],
        note=f"Intervals: 95 %, {rows[0]['interval']}; p: {rows[0]['test']}, not corrected. Detectable: the smallest "
        "true value that the test finds with 80 % power. Where no answer of the tuned model is in the form, the "
        "whole gain counts as form.",
    )


def _by_percent(rows: Sequence[Mapping[str, Any]]) -> Table:
    names = [name for name in (*LABELS, "likeliest") if name in rows[0]]
    heads = LABELS | {"likeliest": "likeliest choice right"}

    def entry(row: Mapping[str, Any], name: str) -> Entry:
        if row[f"{name}_low"] is None:
            return Entry(signed(row[name]))
        return Entry(signed(row[name]), f"[{signed(row[f'{name}_low'])}, {signed(row[f'{name}_high'])}]")

    return Table(
        "Gain over the tuned models at each percentage, judging half, in points",
        "restored weights (%)",
        [heads[name] for name in names],
        [Row(f"{row['percent']:g}", [entry(row, name) for name in names]) for row in rows],
        note="The likeliest of the given choices does not depend on the form of an answer.",
    )


def _ladders(rows: Sequence[Mapping[str, Any]]) -> Table | None:
    columns = {
        "data": "training set",
        "percent": "chosen %",
        "gain_dev": "gain, choosing half",
        GAIN: "gain, judging half",
        FORM: "form",
        KNOWLEDGE: "knowledge",
    }
    return plain_table("Chosen percentage of each model", "model", rows, "model", columns, digits=1)


def curves(rows: Sequence[Mapping[str, Any]]) -> str:
    """Gain of restoring and its two parts by percentage, with their intervals."""
    percents = [0.0, *(row["percent"] for row in rows)]
    with drawing(4.9, 3.3) as (figure, axes):
        axes.axhline(0, color=FAINT, linewidth=0.8)
        for place, (name, label) in enumerate(LABELS.items()):
            axes.plot(
                percents,
                [0.0, *(row[name] for row in rows)],
                color=COLOURS[place],
                marker=MARKERS[place],
                markersize=4,
                label=label,
            )
            if rows[0][f"{name}_low"] is not None:
                low, high = ([0.0, *(row[f"{name}_{end}"] for row in rows)] for end in ("low", "high"))
                axes.fill_between(percents, low, high, color=COLOURS[place], alpha=0.15, linewidth=0)
        axes.set_xlabel("restored weights (%)")
        axes.set_ylabel("gain over the tuned model (points)")
        axes.legend(frameon=False, fontsize=8)
        axes.set_title("Restoration and its parts")
        return inline(
            figure, "restoration", "Gain of restoration on the benchmarks by percentage, and its parts"
        )
