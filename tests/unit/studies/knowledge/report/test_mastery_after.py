"""The section on mastery after tuning: its shares and words."""

from __future__ import annotations

from sftlab.studies.knowledge.report.mastery_after import by_bucket, by_group, figure, section
from sftlab.studies.knowledge.report.view import View
from sftlab.studies.knowledge.results.answer_rows import MasteryAfterRow
from sftlab.studies.knowledge.results.rows import CellRow
from sftlab.studies.knowledge.results.tables import Results, Variant
from tests.unit.studies.knowledge.report.test_fates import text

CELLS = ("bucket0-n8-s0", "bucket0-n8-s1")


def view() -> View:
    """Two training sets; of the facts of buckets 4 and 1 there are 8 and 2, and 10 of bucket 0."""
    cells = [CellRow(cell, "0", 8, seed) for seed, cell in enumerate(CELLS)]
    rows = [
        MasteryAfterRow(CELLS[0], 0.0, "test", 4, 8, 0.9, 0.5, 6, 0, 2, 0, 4, 2),
        MasteryAfterRow(CELLS[0], 0.0, "test", 1, 2, 0.1, 0.0, 2, 0, 0, 1, 0, 1),
        MasteryAfterRow(CELLS[0], 0.0, "test", 0, 10, 0.0, 0.1, 0, 3, 3, 0, 0, 7),
        MasteryAfterRow(CELLS[1], 0.0, "test", 4, 10, 0.9, 0.9, 0, 0, 10, 0, 0, 0),
        MasteryAfterRow(CELLS[0], 40.0, "test", 4, 8, 0.9, 0.9, 0, 0, 8, 0, 0, 0),
    ]
    variant = Variant("restore", "restore", cells=cells, mastery_after=rows)
    return View(Results("t", "m", variants=[variant], reference="restore", kind="study"))


def test_known_facts_are_divided_over_all_training_sets() -> None:
    main = view().main
    assert main is not None
    table = by_group(main)
    assert table is not None
    found = {row.heading: [text(entry) for entry in row.entries] for row in table.rows if row.entries}
    # Of 20 known facts 13 are right, 4 are still completed and 3 never; R is (8 * 0.5 + 2 * 0 + 10 * 0.9) / 20.
    assert found["bucket 0, tuned"][:6] == ["0.820", "0.650", "65.0 %", "20.0 %", "15.0 %", "40.0 %"]
    assert found["bucket 0, tuned"][6:] == ["–"] * 6
    restored = found["bucket 0, 40\N{NO-BREAK SPACE}% restored"]
    assert restored[:6] == ["0.900", "0.900", "100.0 %", "0.0 %", "0.0 %", "0.0 %"]
    buckets = by_bucket(main, 8)
    assert buckets is not None
    assert [row.heading for row in buckets.rows][:4] == [
        "tuned",
        *(f"facts of bucket {b}" for b in (0, 1, 4)),
    ]
    entries = [text(entry) for entry in buckets.rows[1].entries]
    assert entries == ["10", "0.000", "0.100", "30.0 %", "0.0 %", "70.0 %", "0.0 %"]


def test_words_claim_no_more_than_that_a_fact_is_not_lost_entirely() -> None:
    found = section(view())
    assert found is not None and len(found.figures) == 1
    see = found.see.replace("\N{NO-BREAK SPACE}", " ")
    assert "35.0 % are answered wrong after tuning on 8 facts" in see
    assert "still complete 57.1 % at least once with a mapping template" in see  # 4 of 7
    assert "the form" not in see  # a hit can be a guess
    assert see.endswith("Their mean R goes from 0.820 to 0.650.")
    assert section(View(Results("t", "m", variants=[Variant("v", "s")]))) is None
    main = view().main
    assert main is not None and figure(main, 9) is None
