"""The section on causal layer maps."""

from __future__ import annotations

from sftlab.reporting.section import Section, present
from sftlab.reporting.table import Entry, Row, Table
from sftlab.studies.survey.compare import Comparison
from sftlab.studies.survey.report.layer_figures import alone, cumulative
from sftlab.studies.survey.report.plain import Rows, signed

CAVEAT = (
    "A swap is not a training run: a layer that is frozen changes what the others learn. Test a proposal in a sweep "
    "before you use it."
)


def layer_maps(comparison: Comparison) -> Section | None:
    """What the update of each layer does, by models of which some layers are tuned."""
    rows, proposals = comparison.tables["layer_maps"], comparison.tables["layer_proposals"]
    if not rows:
        return None
    plots = [
        alone(rows, "only", "The base with one layer's update", "gain (points)"),
        alone(rows, "back", "The tuned model with one layer put back", "change (points)"),
        cumulative(rows),
    ]
    return Section(
        "layer-maps",
        "Which layers cause the gain (causal layer maps)",
        f"{_see(rows)} {CAVEAT}",
        present(*plots),
        present(_effects(rows), _proposals(proposals)),
        data=("layer_maps", "layer_proposals"),
    )


def _see(rows: Rows) -> str:
    """For each model its most effective layers, where their intervals do not contain 0."""
    said = []
    for name in dict.fromkeys(_model(row) for row in rows):
        here = [row for row in rows if _model(row) == name and row["part"] != "outside"]
        best = max((row for row in here if row["kind"] == "only"), key=lambda row: row["gain"])
        worst = min((row for row in here if row["kind"] == "back"), key=lambda row: row["change"])
        alone_text = (
            f"layer {best['part']} alone brings {signed(best['gain'])}"
            if best["gain_low"] > 0
            else "no layer alone raises the score beyond its interval"
        )
        back_text = (
            f"layer {worst['part']} put back changes it by {signed(worst['change'])}"
            if worst["change_high"] < 0
            else "no layer put back lowers it beyond its interval"
        )
        said.append(f"{name} gains {signed(best['full_gain'])} points: {alone_text}, and {back_text}")
    return f"{'; '.join(said)}."


def _effects(rows: Rows) -> Table:
    names = {
        "only": "alone",
        "back": "put back",
        "first": "first layers together",
        "last": "last layers together",
    }
    return Table(
        "Effect of the update of each part, in points",
        "model and part",
        ["gain over the base", "change against the tuned model"],
        [
            Row(
                f"{_model(row)}: {row['part']} {names[row['kind']]}",
                [
                    Entry(signed(row[key]), f"[{signed(row[f'{key}_low'])}, {signed(row[f'{key}_high'])}]")
                    for key in ("gain", "change")
                ],
            )
            for row in rows
        ],
        note="Means over benchmarks. Intervals: 95 %, bootstrap over the questions of each benchmark; they are about "
        "this model, not about other training runs. Outside: embeddings and the final norm.",
        folded=f"All {len(rows)} swaps",
    )


def _proposals(rows: Rows) -> Table | None:
    if not rows:
        return None
    return Table(
        "Proposals for a sweep",
        "model",
        ["field", "value", "follows from", "change on other questions", "whole gain there"],
        [
            Row(
                _model(row),
                [
                    Entry(row["field"]),
                    Entry(f'"{row["layers"]}"'),
                    Entry(row["swap"]),
                    Entry(
                        signed(row["change"]), f"[{signed(row['change_low'])}, {signed(row['change_high'])}]"
                    ),
                    Entry(signed(row["full_gain"])),
                ],
            )
            for row in rows
        ],
        note="Chosen on every second question, judged on the others. sft.freeze_layers: all layers but the fewest "
        "whose updates bring 90 % of the gain, with embeddings of the base. restore.layers: the layer whose "
        f"restoration raises the score most. {CAVEAT}",
    )


def _model(row: object) -> str:
    assert isinstance(row, dict)
    return f"{row['model']}, {row['data']}"
