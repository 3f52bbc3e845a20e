"""The section on the map of models."""

from __future__ import annotations

from sftlab.reporting.section import Section
from sftlab.reporting.table import Entry, Row, Table
from sftlab.reporting.text import listed, number, percent
from sftlab.studies.survey.compare import Comparison
from sftlab.studies.survey.report.map_figures import map_points
from sftlab.studies.survey.report.plain import Rows, p_text
from sftlab.studies.survey.score_table import BASE

TEXTS = {"question": "questions alone", "answer": "questions with answers in the template"}
COLOURED_BY = ("base", "family", "data", "method", "size", "epoch")


def model_map(comparison: Comparison) -> Section | None:
    """Figure 6, with the numbers behind the picture."""
    rows, groups = comparison.tables["map"], comparison.tables["map_groups"]
    if not rows:
        return None
    texts = list(dict.fromkeys(row["text"] for row in rows))
    plots = [
        map_points([row for row in rows if row["text"] == text], label, f"{label}, {TEXTS[text]}")
        for text in texts
        for label in COLOURED_BY
        if len({row[label] for row in rows if row["data"] != BASE}) > 1
    ]
    return Section(
        "map",
        "Map of models by log-likelihoods (Figure 6)",
        " ".join(_see(text, [row for row in groups if row["text"] == text]) for text in texts),
        plots,
        [_table(groups)] if groups else [],
        data=("map", "map_groups"),
        small=True,
    )


def _see(text: str, groups: Rows) -> str:
    """What is near what, for one kind of text."""
    if not groups:
        return f"By {TEXTS[text]}: too few models or groups for a number."
    said = [
        f"of the same {row['label']} in {percent(row['share_nearest'], 0)} (shuffled "
        f"{percent(row['share_nearest_chance'], 0)}, p {p_text(row['nearest_p'])})"
        for row in groups
        if row["label"] in ("base", "family", "data")
    ]
    return f"By {TEXTS[text]}, the nearest model is {listed(said)}."


def _table(groups: Rows) -> Table:
    return Table(
        "What models near each other have in common",
        "texts and label",
        [
            "groups",
            "silhouette",
            "shuffled",
            "p",
            "nearest alike",
            "shuffled",
            "p",
            "KL within",
            "KL between",
        ],
        [
            Row(
                f"{row['text']}: {row['label']}",
                [
                    Entry(str(row["groups"]), below=[f"{row['models']} models"]),
                    Entry(number(row["silhouette"], 2)),
                    Entry(number(row["silhouette_chance"], 2)),
                    Entry(p_text(row["silhouette_p"])),
                    Entry(percent(row["share_nearest"], 0)),
                    Entry(percent(row["share_nearest_chance"], 0)),
                    Entry(p_text(row["nearest_p"])),
                    Entry(number(row["divergence_within"], 2)),
                    Entry(number(row["divergence_between"], 2)),
                ],
            )
            for row in groups
        ],
        note="Log-likelihoods are clipped at their lowest 2 % and double-centred; the numbers are of all dimensions, "
        "the pictures are t-SNE. Shuffled: labels of base over models, of family over whole bases, all others over the "
        "models of each base; p is one-sided and not corrected. KL: estimated divergence in nats a text. Distances in "
        "a t-SNE picture have no unit.",
    )
