"""The section on what becomes of each fact: its shares, percentages and words."""

from __future__ import annotations

from sftlab.analysis.fates import Fates
from sftlab.studies.knowledge.report.fates import by_group, by_topic, recovery, section
from sftlab.studies.knowledge.report.lookup import Group
from sftlab.studies.knowledge.report.view import View
from sftlab.studies.knowledge.results.rows import CellRow, ChoiceRow, FateRow
from sftlab.studies.knowledge.results.tables import Results, Variant

NONE = (None, None, None, None)


def view(chosen: float) -> View:
    """Two training sets, two percentages; at 10 % all is lost."""
    cells = [CellRow(f"bucket0-n8-s{seed}", "0", 8, seed) for seed in (0, 1)]
    rows = [FateRow(cell.cell, 10.0, "test", "a", 4, 0, 0, 0, 8) for cell in cells]
    rows += [
        FateRow("bucket0-n8-s0", 40.0, "test", "a", 4, 1, 1, 2, 0),
        FateRow("bucket0-n8-s0", 40.0, "test", "b", 1, 1, 0, 0, 3),
        FateRow("bucket0-n8-s1", 40.0, "test", "a", 4, 3, 0, 1, 0),
        FateRow("bucket0-n8-s1", 40.0, "test", "b", 1, 1, 1, 1, 1),
        FateRow("bucket0-n8-s0", 40.0, "test", "b", 0, 1, 0, 0, 1),
        FateRow("bucket0-n8-s1", 40.0, "test", "b", 0, 0, 1, 0, 1),
    ]
    variant = Variant("restore", "restore", cells=cells, fates=rows)
    choice = ChoiceRow("group", "restore", "restore", "0", 8, chosen, 2, 0.5, 0.4, *NONE, 100)
    return View(Results("t", "m", variants=[variant], choice=[choice], reference="restore", kind="study"))


def text(cell: object) -> str:
    return str(getattr(cell, "text", "")).replace("\N{NO-BREAK SPACE}", " ")


def test_shares_are_means_over_training_sets_at_the_chosen_percentage() -> None:
    main = view(40.0).main
    assert main is not None
    assert main.fates["bucket0-n8-s0", 40.0, "test", 4] == Fates(1, 1, 2, 0)
    table = by_group(main)
    assert table is not None
    # Of 8 facts of buckets 1 to 4 the sets keep 2 and 4, recover 2 and 2, undo 1 and 1, lose 3 and 1.
    entries = table.rows[1].entries
    assert [text(entry) for entry in entries] == ["37.5 %", "25.0 %", "12.5 %", "25.0 %", "25.0 %", *5 * "–"]
    # Student's t of one degree of freedom, 12.7062, times half the distance of 2/8 and 4/8: below 0 and above 1
    assert entries[0].below == ["0.0\N{NO-BREAK SPACE}% to 100.0\N{NO-BREAK SPACE}%"]
    assert entries[1].below == ["25.0\N{NO-BREAK SPACE}% to 25.0\N{NO-BREAK SPACE}%"]
    assert table.rows[1].heading == "bucket 0, 40\N{NO-BREAK SPACE}% restored"


def test_answers_turned_over_are_shares_of_the_wrong_and_of_the_right_ones() -> None:
    main = view(40.0).main
    assert main is not None
    table = recovery(main, 8)
    assert table is not None
    (row,) = table.rows
    # Bucket 1: 1 of 5 wrong ones recovered, 1 of 3 right ones undone; bucket 4: 3 of 3 and 1 of 5.
    assert [(text(e), *e.below) for e in row.entries if e.below] == [
        ("0 %", "of 2"),
        ("20 %", "of 5"),
        ("100 %", "of 3"),
        ("50 %", "of 2"),
        ("33 %", "of 3"),
        ("20 %", "of 5"),
    ]
    topics = by_topic(main, 8)
    assert topics is not None and [row.heading for row in topics.rows] == ["in domain", "a", "b"]
    assert [text(entry) for entry in topics.rows[2].entries] == [
        "25.0 %",
        "12.5 %",
        "12.5 %",
        "50.0 %",
        "25.0 %",
    ]


def test_where_dev_restores_nothing_the_percentage_next_to_20_is_shown() -> None:
    main = view(0.0).main
    assert main is not None
    assert main.shown_percents == {Group("0", 8): 10.0}
    found = section(view(0.0))
    assert found is not None and "100.0\N{NO-BREAK SPACE}% are wrong after tuning on 8 facts" in found.see
    assert section(View(Results("t", "m", variants=[Variant("v", "s")]))) is None
