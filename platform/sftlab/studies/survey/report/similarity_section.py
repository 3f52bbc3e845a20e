"""The section on the words that training sets and benchmarks share (appendix G)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from sftlab.reporting.section import Section
from sftlab.reporting.svg import FAINT, drawing, inline
from sftlab.reporting.text import count, number
from sftlab.studies.survey.compare import Comparison
from sftlab.studies.survey.report.figures import COLOURS
from sftlab.studies.survey.report.plain import p_text


def similarity(comparison: Comparison) -> Section | None:
    """Appendix G, with TF-IDF in place of BERTScore."""
    rows, found = (comparison.tables.get(name, ()) for name in ("similarities", "similarity"))
    if not found:
        return None
    (first,) = found
    grid = f"{count(first['sets'], 'set')} and {count(first['benchmarks'], 'benchmark')}"
    see = (
        "The cosine of the mean TF-IDF vectors of a training set and of a benchmark's questions correlates with the "
        f"mean gain by r = {number(first['r'], 2)} [{number(first['low'], 2)}, {number(first['high'], 2)}] over {grid} "
        f"(p {p_text(first['p'])}; sets are shuffled for p and resampled for the interval). The paper has r = 0.11 "
        "with BERTScore."
    )
    title = "Similarity of sets and benchmarks (appendix G)"
    return Section("similarity", title, see, [similarity_points(rows)], data=("similarities", "similarity"))


def similarity_points(rows: Sequence[Mapping[str, Any]]) -> str:
    """Each set and benchmark: their similarity and the mean gain."""
    with drawing(4.9, 3.3) as (figure, axes):
        axes.axhline(0, color=FAINT, linewidth=0.8)
        axes.scatter(
            [row["similarity"] for row in rows],
            [row["standardised_gain"] for row in rows],
            s=16,
            color=COLOURS[0],
            alpha=0.7,
            linewidths=0,
        )
        axes.set_xlabel("similarity of set and benchmark")
        axes.set_ylabel("mean gain (standard deviations)")
        axes.set_title("Similarity and gain")
        return inline(figure, "similarity", "Similarity of each set and benchmark against the mean gain")
