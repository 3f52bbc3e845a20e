"""Metrics of a study's models, from its tables."""

from __future__ import annotations

from sftlab.studies.knowledge.results.answer_rows import (
    AnswerKindRow,
    MasteryAfterRow,
    TopicBaselineRow,
    TopicRow,
)
from sftlab.studies.knowledge.results.rows import CellRow
from sftlab.studies.knowledge.results.tables import Variant
from sftlab.studies.knowledge.tracking.metrics import metrics_by_model


def test_wrong_answers_are_counted_by_kind_over_topics_and_buckets() -> None:
    rows = [
        AnswerKindRow("base", None, "test", "a", 4, 2, 0, 1, 7),
        AnswerKindRow("c", 10.0, "test", "a", 4, 2, 4, 1, 1),
        AnswerKindRow("c", 10.0, "test", "b", 0, 0, 1, 0, 3),
    ]
    variant = Variant("v", "restore", cells=[CellRow("c", "0", 8, 0)], answer_kinds=rows)
    found = {
        model: {row.key: row.value for row in rows if row.key.startswith("wrong")}
        for model, rows in metrics_by_model(variant, []).items()
    }
    assert found[None, None] == {
        "wrong_answers_test/other_entity": 0,
        "wrong_answers_test/no_answer": 1,
        "wrong_answers_test/malformed": 7,
    }
    assert found["c", 10.0] == {
        "wrong_answers_test/other_entity": 5,
        "wrong_answers_test/no_answer": 1,
        "wrong_answers_test/malformed": 4,
    }


def test_baselines_of_topics_are_means_over_questions() -> None:
    baselines = [
        TopicBaselineRow("test", "a", 10, "train", 40, "Paris", 0.6, 0.3),
        TopicBaselineRow("test", "b", 30, "train", 40, "Rome", 0.2, 0.1),
    ]
    topics = [TopicRow("c", 10.0, "test", "a", 10, 4, 0.5), TopicRow("c", 10.0, "test", "b", 30, 4, 0.1)]
    found = metrics_by_model(Variant("v", "restore", topics=topics, topic_baselines=baselines), [])
    assert {row.key: row.value for row in found[None, None]} == {
        "baselines_test/majority": 0.3,
        "baselines_test/frequency": 0.15,
    }
    assert [(row.key, row.value) for row in found["c", 10.0]] == [("frequency_correlation/test", 0.2)]


def test_mastery_after_tuning_is_a_mean_over_the_facts_of_all_buckets() -> None:
    rows = [
        MasteryAfterRow("c", 0.0, "test", 4, 8, 0.9, 0.5, 6, 0, 2, 0, 4, 2),
        MasteryAfterRow("c", 0.0, "test", 0, 2, 0.0, 0.25, 0, 1, 1, 0, 0, 1),
    ]
    found = metrics_by_model(Variant("v", "restore", mastery_after=rows), [])["c", 0.0]
    assert {row.key: row.value for row in found} == {
        "mastery_after_test/mean_r": 0.45,
        "mastery_after_test/wrong_known": 4,
        "mastery_after_test/wrong_unknown": 3,
    }
