"""The section on topics: accuracies of the models shown, baselines, correlations."""

from __future__ import annotations

from sftlab.studies.knowledge.report.topics import by_topic, section
from sftlab.studies.knowledge.report.view import View
from sftlab.studies.knowledge.results.answer_rows import TopicBaselineRow, TopicRow, mean_correlation
from sftlab.studies.knowledge.results.rows import CellRow, FateRow
from sftlab.studies.knowledge.results.tables import Results, Variant
from tests.unit.studies.knowledge.report.test_fates import text

CELLS = ("bucket0-n8-s0", "bucket0-n8-s1")


def view() -> View:
    """Two training sets, restored by 20 % and 60 %; two topics, of which one has no known answers."""
    cells = [CellRow(cell, "0", 8, seed) for seed, cell in enumerate(CELLS)]
    rows = [
        TopicRow("base", None, "test", "a", 10, 1, None),
        TopicRow(CELLS[0], 0.0, "test", "a", 10, 4, 0.5),
        TopicRow(CELLS[1], 0.0, "test", "a", 10, 6, None),
        TopicRow(CELLS[0], 20.0, "test", "a", 10, 8, 0.1),
        TopicRow(CELLS[1], 20.0, "test", "a", 10, 8, 0.3),
        TopicRow(CELLS[0], 60.0, "test", "a", 10, 0, None),
        TopicRow("base", None, "test", "b", 30, 3, -0.25),
    ]
    baselines = [TopicBaselineRow("test", "a", 10, "train", 40, "Paris", 0.6, 0.35)]
    fates = [FateRow(cell, at, "test", "a", 4, 0, 0, 0, 8) for cell in CELLS for at in (20.0, 60.0)]
    variant = Variant("restore", "restore", cells=cells, fates=fates, topics=rows, topic_baselines=baselines)
    return View(Results("t", "m", variants=[variant], reference="restore", kind="study"))


def test_a_topic_has_its_baselines_next_to_the_models_shown() -> None:
    main = view().main
    assert main is not None
    table = by_topic(main, 8, "test")
    assert table is not None
    found = {row.heading: [text(entry) for entry in row.entries] for row in table.rows}
    assert found["a"] == [
        "10",
        "Paris",
        "60.0 %",
        "35.0 %",
        "10.0 %",
        "50.0 %",
        "80.0 %",
        "–",
        "0.50",
        "0.20",
    ]
    minus = "\N{MINUS SIGN}0.25"
    assert found["b"] == ["30", "–", "–", "–", "10.0 %", "–", "–", minus, "–", "–"]
    assert by_topic(main, 8, "test_ood") is None


def test_words_count_the_topics_above_their_majority_answer() -> None:
    found = section(view())
    assert found is not None and found.see.startswith("In 0 of 1 topic ")  # 50 % against 60 %
    assert found.see.endswith("the mean correlation of being right with the frequency of the answer is 0.50.")
    assert section(View(Results("t", "m", variants=[Variant("v", "s")]))) is None


def test_the_mean_correlation_is_weighted_with_questions() -> None:
    rows = [
        TopicRow("c", 0.0, "test", t, n, 1, rho)
        for t, n, rho in (("a", 10, 0.5), ("b", 30, 0.1), ("c", 9, None))
    ]
    assert mean_correlation(rows) == (10 * 0.5 + 30 * 0.1) / 40
    assert mean_correlation(rows[2:]) is None
