"""The section on wrong answers: its shares, its percentages and words."""

from __future__ import annotations

from sftlab.analysis.answer_kinds import Kinds
from sftlab.studies.knowledge.report.answer_kinds import (
    along_ladder,
    by_bucket,
    by_group,
    section,
    shown_rows,
)
from sftlab.studies.knowledge.report.view import View
from sftlab.studies.knowledge.results.answer_rows import AnswerKindRow
from sftlab.studies.knowledge.results.rows import CellRow, ChoiceRow, FateRow
from sftlab.studies.knowledge.results.tables import Results, Variant
from tests.unit.studies.knowledge.report.test_fates import NONE, text

CELLS = ("bucket0-n8-s0", "bucket0-n8-s1")


def view() -> View:
    """Two training sets; at 0 %, 10 % and 40 %, of which dev chose 40 %."""
    cells = [CellRow(cell, "0", 8, seed) for seed, cell in enumerate(CELLS)]
    rows = [
        AnswerKindRow("base", None, "test", "a", 4, 2, 0, 1, 7),
        AnswerKindRow(CELLS[0], 0.0, "test", "a", 4, 2, 4, 1, 1),
        AnswerKindRow(CELLS[0], 0.0, "test", "b", 0, 0, 1, 0, 1),
        AnswerKindRow(CELLS[1], 0.0, "test", "a", 4, 4, 2, 1, 1),
        AnswerKindRow(CELLS[1], 0.0, "test", "b", 0, 0, 2, 0, 0),
        *(AnswerKindRow(cell, 10.0, "test", "a", 4, 0, 0, 8, 0) for cell in CELLS),
        *(AnswerKindRow(cell, 40.0, "test", "a", 4, 6, 0, 0, 2) for cell in CELLS),
    ]
    fates = [FateRow(cell, at, "test", "a", 4, 0, 0, 0, 8) for cell in CELLS for at in (10.0, 40.0)]
    variant = Variant("restore", "restore", cells=cells, fates=fates, answer_kinds=rows)
    choice = ChoiceRow("group", "restore", "restore", "0", 8, 40.0, 2, 0.5, 0.4, *NONE, 100)
    return View(Results("t", "m", variants=[variant], choice=[choice], reference="restore", kind="study"))


def test_shares_are_of_the_answers_of_all_training_sets() -> None:
    main = view().main
    assert main is not None
    assert main.answer_kinds[CELLS[0], 0.0, "test", 4] == Kinds(2, 4, 1, 1)
    table = by_group(main)
    assert table is not None
    found = {row.heading: [text(entry) for entry in row.entries] for row in table.rows if row.entries}
    assert found == {
        "base model, not tuned": ["20.0 %", "0.0 %", "10.0 %", "70.0 %", *4 * "–"],
        "bucket 0, tuned": ["30.0 %", "45.0 %", "10.0 %", "15.0 %", *4 * "–"],  # of 20 answers
        "bucket 0, 40\N{NO-BREAK SPACE}% restored": ["75.0 %", "0.0 %", "0.0 %", "25.0 %", *4 * "–"],
    }


def test_buckets_and_percentages_have_their_shares() -> None:
    main = view().main
    assert main is not None
    buckets, ladder = by_bucket(main, 8), along_ladder(main, 8)
    assert buckets is not None
    assert [(row.heading, [text(entry) for entry in row.entries]) for row in buckets.rows] == [
        ("facts of bucket 0", []),
        ("tuned", ["4", "0.0 %", "75.0 %", "0.0 %", "25.0 %"]),
        ("facts of bucket 4", []),
        ("base model", ["10", "20.0 %", "0.0 %", "10.0 %", "70.0 %"]),
        ("tuned", ["16", "37.5 %", "37.5 %", "12.5 %", "12.5 %"]),
        ("restored", ["16", "75.0 %", "0.0 %", "0.0 %", "25.0 %"]),
    ]
    assert ladder is not None
    assert [
        (row.heading.replace("\N{NO-BREAK SPACE}", " "), [text(e) for e in row.entries])
        for row in ladder.rows
    ] == [
        ("bucket 0", []),
        ("0 %", ["20", "30.0 %", "45.0 %", "10.0 %", "15.0 %"]),
        ("10 %", ["16", "0.0 %", "0.0 %", "100.0 %", "0.0 %"]),
        ("40 %", ["16", "75.0 %", "0.0 %", "0.0 %", "25.0 %"]),
    ]
    # The base model, both models at 0 % and at the chosen percentage.
    assert [(row.cell, row.percent) for row in shown_rows(main)] == [
        ("base", None),
        *((cell, 0.0) for cell in CELLS for _ in "ab"),
        *((cell, 40.0) for cell in CELLS),
    ]


def test_words_divide_the_wrong_answers() -> None:
    found = section(view())
    assert found is not None
    # 14 of 20 are wrong: 9 another entity, 2 empty, 3 other text.
    see = found.see.replace("\N{NO-BREAK SPACE}", " ")
    assert "70.0 % of the answers after tuning on 8 facts are wrong" in see
    assert "64.3 % are another entity of the topic, 14.3 % are empty, and 21.4 % are other text" in see
    assert section(View(Results("t", "m", variants=[Variant("v", "s")]))) is None
