"""Metrics of a study's models, from its tables."""

from __future__ import annotations

from sftlab.studies.knowledge.results.answer_rows import (
    AnswerKindRow,
    MasteryAfterRow,
    TopicBaselineRow,
    TopicRow,
)
from sftlab.studies.knowledge.results.gradient_rows import ForgettingRow, GradientRow, RestoredGradientRow
from sftlab.studies.knowledge.results.rows import (
    AccuracyRow,
    CellRow,
    DistributionRow,
    DivergenceRow,
    PairedRow,
    UpdateRow,
)
from sftlab.studies.knowledge.results.tables import Results, Variant
from sftlab.studies.knowledge.tracking.metrics import metrics_by_model
from sftlab.studies.knowledge.tracking.runs import trial_records
from sftlab.tracking import TrackedModel


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


def test_the_sizes_of_an_update_are_logged_with_the_tuned_model() -> None:
    updates = [
        UpdateRow("c", "all", "all", 8, 0.5, 0.25, 0.125, 0.0625, 0.75),
        UpdateRow("c", "layer", "layer_1", 4, 0.5, 0.25, 0.125, 0.0625, 0.03),
        UpdateRow("c", "module", "attention", 4, 0.5, 0.25, 0.125, 0.0625, 0.04),
        UpdateRow("c", "module", "norm", 4, 0.5, 0.25, 0.125, 0.0625, None),
    ]
    tuned, restored = logged(Variant("v", "restore", cells=[CellRow("c", "0", 8, 0)], updates=updates))
    assert tuned == {
        "update/changed": 0.5,
        "update/l1": 0.25,
        "update/l2": 0.125,
        "update/mean_relative": 0.0625,
        "update_by_layer/layer_1": 0.03,
        "update_by_module/attention": 0.04,
    }
    assert restored == {}


def test_all_metrics_of_a_model_are_logged_and_an_accuracy_comes_first() -> None:
    cell = CellRow("c", "0", 8, 0)
    variant = Variant(
        "v",
        "restore",
        cells=[cell],
        paired=[PairedRow("c", 10.0, "test", 0, 4, 2, 1)],
        answer_kinds=[AnswerKindRow("c", 10.0, "dev", "a", 4, 2, 4, 1, 1)],
        mastery_after=[MasteryAfterRow("c", 10.0, "test", 4, 8, 0.9, 0.5, 6, 0, 2, 0, 4, 2)],
        topics=[TopicRow("c", 10.0, "test", "a", 10, 4, 0.5)],
        divergence=[DivergenceRow("c", 10.0, 7, 1.25)],
        distribution=[DistributionRow("c", 10.0, "module", "attention", 0.5)],
        updates=[UpdateRow("c", "all", "all", 8, 0.5, 0.25, 0.125, 0.0625, 0.75)],
        accuracy=[
            AccuracyRow("c", "0", 8, 0, 10.0, split, bucket, 4, 2, 0.5)
            for split in ("dev", "train_set")
            for bucket in (0, None)
        ],
    )
    tuned, restored = logged(variant)
    computed = {model: {row.key for row in rows} for model, rows in metrics_by_model(variant, []).items()}
    assert {("c", 0.0): set(tuned), ("c", 10.0): set(restored)} == computed
    assert {key.split("/")[0] for key in restored} == {
        "accuracy",
        "answers_gained",
        "answers_lost",
        "dev_by_bucket",
        "frequency_correlation",
        "kl",
        "mastery_after_test",
        "restored_weights",
        "train_set_by_bucket",
        "wrong_answers_dev",
    }
    assert list(restored)[:2] == ["accuracy/dev", "accuracy/train_set"]


def logged(variant: Variant) -> tuple[dict[str, float], dict[str, float]]:
    """The metrics that the trial of cell `c` logs with its tuned model and with the one at 10 %."""
    models = {variant.name: [TrackedModel("tuned", "c", 0.0), TrackedModel("restored", "c", 10.0)]}
    (trial,) = trial_records(Results("s", "pocket", {}, variants=[variant], kind="study"), models, [])
    tuned, restored = ({row.key: row.value for row in model.metrics} for model in trial.models)
    return tuned, restored


def test_gradients_of_facts_are_logged_over_all_parameters() -> None:
    variant = Variant(
        "v",
        "restore",
        gradients=[
            GradientRow(0, "all", "all", 9, 2.5, 0.1, 0.25, 0.1),
            GradientRow(4, "all", "all", 1, 1.5, None, None, None),
            GradientRow(0, "layer", "1", 9, 9.9, None, None, None),
        ],
        restored_gradients=[
            RestoredGradientRow("c", 20.0, 0, "all", "all", 9, 0.125, 0.1, 0.2),
            RestoredGradientRow("c", 20.0, 0, "module", "mlp", 9, 0.5, 0.1, 0.2),
        ],
        forgetting=[
            ForgettingRow("c", "test_ood", "update", 9, 3, 0.75, 0.5, 0.9),
            ForgettingRow("c", "test_ood", "norm", 9, 9, None, None, None),
        ],
    )
    found = {
        model: {row.key: row.value for row in rows} for model, rows in metrics_by_model(variant, []).items()
    }
    assert found[None, None] == {
        "gradients_norm/bucket_0": 2.5,
        "gradients_cosine/bucket_0": 0.25,
        "gradients_norm/bucket_4": 1.5,
    }
    assert found["c", 20.0] == {"gradients_restored/bucket_0": 0.125}
    assert found["c", 0.0] == {"forgetting_test_ood/update": 0.75}
