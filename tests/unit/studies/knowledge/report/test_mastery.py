"""The section on mastery: how sure it is, what sets are drawn from, and which sets are not even."""

from __future__ import annotations

from sftlab.studies.knowledge.report.lookup import VariantView
from sftlab.studies.knowledge.report.mastery import certainty, drawn, section, topics
from sftlab.studies.knowledge.report.view import View
from sftlab.studies.knowledge.results.rows import CellRow, CertaintyRow, DrawnRow, MasteryRow
from sftlab.studies.knowledge.results.tables import Results, Variant


def variant() -> Variant:
    sure = [
        CertaintyRow("train", "A", 0, 30, 0.10, 0.8, 0.9, 0.5),
        CertaintyRow("train", "B", 0, 10, 0.30, 0.4, 0.5, 0.1),
        CertaintyRow("train", "B", 4, 5, 0.02, 1.0, 1.0, 1.0),
        CertaintyRow("test", "A", 0, 7, 0.10, 0.7, 0.9, 0.5),
    ]
    sets = [DrawnRow("even", "A", 0, 8), DrawnRow("even", "B", 0, 8)]
    sets += [DrawnRow("filled", "A", 0, 14), DrawnRow("filled", "B", 0, 2)]
    cells = [CellRow("even", "0", 16, 0), CellRow("filled", "0", 16, 1)]
    return Variant("v", "s", cells=cells, certainty=sure, drawn=sets, mastery=[MasteryRow("train", 0, 45)])


def texts(entries: object) -> list[str]:
    return [entry.text.replace("\N{NO-BREAK SPACE}", " ") for entry in entries]  # type: ignore[attr-defined]


def test_certainty_is_a_mean_over_facts() -> None:
    table = certainty(VariantView(variant()))
    assert table is not None
    assert [row.heading for row in table.rows] == [
        "train",
        "bucket 0",
        "bucket 4",
        "test, in domain",
        "bucket 0",
    ]
    assert texts(table.rows[1].entries) == ["40", "15.0 %", "80.0 %", "70.0 %", "\N{EN DASH}"]
    assert texts(table.rows[2].entries)[-1] == "100.0 %"
    found = section(View(Results("t", "m", variants=[variant()])))
    # (40 * 0.8 + 5) / 45 and (40 * 0.7 + 5) / 45
    text = found.see.replace("\N{NO-BREAK SPACE}", " ")
    assert "82.2 % of the 45 train facts" in text and text.endswith("with other templates 73.3 %.")


def test_what_sets_are_drawn_from_is_counted_by_topic_and_bucket() -> None:
    table = topics(VariantView(variant()))
    assert table is not None
    assert texts(table.rows[0].entries) == ["30", "0", "0", "0", "0", "30"]
    assert texts(table.rows[1].entries) == ["10", "0", "0", "0", "5", "15"]
    # 10 of B allow 10 or 11 of A; without a fact of A there is no even set of bucket 4
    assert texts(table.rows[2].entries) == ["21", "0", "0", "0", "0", ""]


def test_sets_that_are_not_even_are_shown_with_their_topics() -> None:
    table = drawn(VariantView(variant()))
    assert table is not None and [row.heading for row in table.rows] == ["filled"]
    assert texts(table.rows[0].entries) == ["14", "2"] and list(table.columns) == ["A", "B"]
    assert drawn(VariantView(Variant("v", "s"))) is None
