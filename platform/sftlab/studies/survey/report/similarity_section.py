"""The section on how training sets resemble benchmarks, in words and in embeddings (appendix G)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from sftlab.reporting.section import Section
from sftlab.reporting.svg import FAINT, drawing, inline
from sftlab.reporting.table import Entry, Row, Table
from sftlab.reporting.text import count, number
from sftlab.studies.survey.compare import Comparison
from sftlab.studies.survey.report.figures import COLOURS
from sftlab.studies.survey.report.plain import p_text
from sftlab.studies.survey.similarity import ALL_MODELS, EMBEDDINGS, WORDS

TITLES = {WORDS: "Similarity of words (TF-IDF)", EMBEDDINGS: "Similarity of embeddings"}
SAID = {
    WORDS: "the cosine of the mean TF-IDF vectors of a training set and of a benchmark's questions",
    EMBEDDINGS: "the cosine of their mean embeddings under the bases",
}


def similarity(comparison: Comparison) -> Section | None:
    """Appendix G, with TF-IDF and the bases' input embeddings in place of BERTScore."""
    rows, found = (comparison.tables.get(name, ()) for name in ("similarities", "similarity"))
    whole = {row["measure"]: row for row in found if row["model"] == ALL_MODELS}
    if not whole:
        return None
    first = next(iter(whole.values()))
    grid = f"{count(first['sets'], 'set')} and {count(first['benchmarks'], 'benchmark')}"
    said = "; ".join(
        f"{SAID[measure]} by r = {_r(row)} (p {p_text(row['p'])})" for measure, row in whole.items()
    )
    see = f"With the mean gain over {grid} correlate: {said}. The paper has r = 0.11 with BERTScore."
    return Section(
        "similarity",
        "Similarity of sets and benchmarks (appendix G)",
        see,
        [similarity_points(rows, measure) for measure in whole],
        [_by_model(found)],
        data=("similarities", "similarity"),
    )


def _by_model(found: Sequence[Mapping[str, Any]]) -> Table:
    """r of each model, by measure."""
    by_model: dict[str, dict[str, Mapping[str, Any]]] = {}
    for row in found:
        by_model.setdefault(row["model"], {})[row["measure"]] = row
    names = [measure for measure in TITLES if any(row["measure"] == measure for row in found)]
    return Table(
        "Correlation of similarity and gain over sets and benchmarks",
        "model",
        [part for measure in names for part in (measure, "shuffled sets", "p")],
        [
            Row(model, [entry for measure in names for entry in _entries(rows.get(measure))])
            for model, rows in by_model.items()
        ],
        note="Intervals: 95 %, bootstrap over sets. Shuffled sets: 95 % of r, from which p follows; not corrected. "
        "Embeddings: mean input embeddings of a base, less the mean of its vocabulary, texts at length 1.",
    )


def _entries(row: Mapping[str, Any] | None) -> list[Entry]:
    if row is None:
        return [Entry("–")] * 3
    null = f"{number(row['null_low'], 2)} to {number(row['null_high'], 2)}"
    interval = f"[{number(row['low'], 2)}, {number(row['high'], 2)}]"
    return [Entry(number(row["r"], 2), interval), Entry(null), Entry(p_text(row["p"]))]


def _r(row: Mapping[str, Any]) -> str:
    return f"{number(row['r'], 2)} [{number(row['low'], 2)}, {number(row['high'], 2)}]"


def similarity_points(rows: Sequence[Mapping[str, Any]], measure: str) -> str:
    """Each set and benchmark: their similarity and the mean gain."""
    known = [row for row in rows if row[f"similarity_{measure}"] is not None]
    with drawing(4.9, 3.3) as (figure, axes):
        axes.axhline(0, color=FAINT, linewidth=0.8)
        axes.scatter(
            [row[f"similarity_{measure}"] for row in known],
            [row["standardised_gain"] for row in known],
            s=16,
            color=COLOURS[0],
            alpha=0.7,
            linewidths=0,
        )
        axes.set_xlabel("similarity of set and benchmark")
        axes.set_ylabel("mean gain (standard deviations)")
        axes.set_title(TITLES[measure])
        return inline(
            figure,
            f"similarity-{measure}",
            f"{TITLES[measure]} of each set and benchmark against the mean gain",
        )
