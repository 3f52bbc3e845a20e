"""Topics that training sets leave out: what is compared with what."""

from __future__ import annotations

import pytest

from sftlab.studies.knowledge.report.left_out import effects, section
from sftlab.studies.knowledge.report.view import View
from sftlab.studies.knowledge.results.answer_rows import TopicRow
from sftlab.studies.knowledge.results.rows import CellRow, FateRow
from sftlab.studies.knowledge.results.statistics import fill_tables
from sftlab.studies.knowledge.results.tables import Results, Variant
from tests.unit.studies.knowledge.report.test_fates import text


def variant(topic: str | None, right: dict[str, tuple[int, int]], strategy: str = "restore") -> Variant:
    """Tuned models of two seeds, with so many of ten questions of each topic right; restored ones have one more."""
    cells = [CellRow(f"bucket0-n8-s{seed}", "0", 8, seed) for seed in (0, 1)]
    rows = [
        TopicRow(cell.cell, percent, "test", name, 10, counts[cell.set_seed] + (percent > 0), None)
        for name, counts in right.items()
        for cell in cells
        for percent in (0.0, 20.0)
    ]
    fates = [FateRow(cell.cell, 20.0, "test", "A", 0, 1, 0, 0, 0) for cell in cells]
    spec = {"training_sets": {} if topic is None else {"leave_out": topic}}
    settings = {"leave_out": topic or "none"}
    name = f"{strategy} leave_out={topic or 'none'}"
    return Variant(name, strategy, settings, spec, cells=cells, topics=rows, fates=fates)


def view(*variants: Variant) -> View:
    return View(Results("t", "m", variants=variants))


def test_a_left_out_topic_is_compared_with_the_variants_alike_that_train_on_it() -> None:
    shown = view(
        variant("A", {"A": (1, 2), "B": (9, 9)}),
        variant("B", {"A": (4, 4), "B": (3, 5)}),
        variant(None, {"A": (6, 8), "B": (5, 7)}),
        variant(None, {"A": (0, 0), "B": (0, 0)}, strategy="wise-ft"),
    )
    found = {(one.topic, one.state): one for one in effects(shown)}
    assert set(found) == {(topic, state) for topic in "AB" for state in ("tuned", "restored")}
    tuned = found["A", "tuned"]
    # With the topic: (4 + 6) / 2 of seed 0 and (4 + 8) / 2 of seed 1, of ten.
    assert (tuned.without, tuned.trained) == (pytest.approx(0.15), pytest.approx(0.55))
    assert tuned.differences == pytest.approx([0.1 - 0.5, 0.2 - 0.6])
    assert found["B", "tuned"].differences == pytest.approx([0.3 - 0.7, 0.5 - 0.8])
    assert found["A", "restored"].without == pytest.approx(0.25)
    page = section(shown)
    assert page is not None and "In 2 of 2 cases" in page.see
    first = page.tables[0].rows[0]
    assert first.heading == "A: restore leave_out=A"
    assert [text(entry) for entry in first.entries][:3] == ["15.0 %", "55.0 %", "\N{MINUS SIGN}40.0"]


def test_without_left_out_topics_there_is_no_section() -> None:
    assert section(view(variant(None, {"A": (1, 2)}))) is None
    assert section(view(variant("A", {"A": (1, 2)}))) is None


def test_the_reference_is_trained_on_all_topics() -> None:
    variants = [variant("A", {}), variant(None, {})]
    bare = [Variant(v.name, v.strategy, v.settings, v.spec) for v in variants]
    assert fill_tables(Results("t", "m", variants=bare), lambda *_: ([], [])).reference == bare[1].name
