"""What a study looks like in a real MLflow with a sqlite file; no Ray."""

from __future__ import annotations

import dataclasses
import os
import shutil
from pathlib import Path

import pytest

from sftlab.studies.knowledge.results.tables import DivergenceRow
from sftlab.studies.knowledge.tracking.log import log_study
from sftlab.studies.knowledge.tracking.study import model_records, study_key
from sftlab.tracking import TrackedModel, TrackedTable, TrackingSettings, names
from sftlab.tracking.records import rounded
from tests.support.tracked_study import (
    SPEC,
    everything,
    make_database,
    make_model,
    make_tables,
    models_of,
    results_of,
)

os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")


@pytest.fixture(scope="module")
def empty_database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Made once and copied for the tests."""
    return make_database(tmp_path_factory.mktemp("empty"))


@pytest.fixture
def store(tmp_path: Path, empty_database: Path) -> Path:
    """Root of a store with MLflow's database in its first state."""
    shutil.copy(empty_database, tmp_path / "mlflow.db")
    return tmp_path


@pytest.fixture
def model_folder(tmp_path: Path) -> Path:
    return make_model(tmp_path / "restored")


@pytest.fixture
def tables(tmp_path: Path) -> list[TrackedTable]:
    return make_tables(tmp_path)


def test_a_study_is_a_parent_run_with_a_child_a_model(
    tmp_path: Path, model_folder: Path, tables: list[TrackedTable]
) -> None:
    from mlflow import MlflowClient

    results = results_of(2)
    report = tmp_path / "report.html"
    report.write_text("<h1>study</h1>")
    heard: list[tuple[int, int]] = []
    study = log_study(
        results,
        models_of(results, model_folder),
        TrackingSettings(),
        tmp_path,
        tables,
        report,
        lambda done, total: heard.append((done, total)),
    )
    assert heard[0] == (0, 4) and heard[-1] == (4, 4)
    client = MlflowClient(tracking_uri=study.address)

    parent = client.get_run(study.run_id)
    assert parent.info.run_name == "study" and parent.info.status == "FINISHED"
    assert parent.data.metrics["recommended/percent"] == 20.0
    assert parent.data.metrics["recommended/test"] == pytest.approx(0.26)
    assert "restore 20% of `bucket2-n100-s0`" in parent.data.tags["mlflow.note.content"]
    assert [file.path for file in client.list_artifacts(study.run_id)] == ["report.html"]

    tuned = client.get_run(study.runs["bucket2-n100-s0/0"])
    assert tuned.info.run_name == "bucket2 × 100 · tuned · seed 0"
    assert tuned.info.end_time - tuned.info.start_time == 2000
    assert tuned.data.params == {
        "model": "pocket",
        "kind": "tuned",
        "cell": "bucket2-n100-s0",
        "train_bucket": "2",
        "size": "100",
        "set_seed": "0",
        "percent": "0",
        "sft.batch_size": "8",
        "sft.learning_rate": "1e-05",
    }
    assert tuned.data.tags["mlflow.parentRunId"] == study.run_id
    assert tuned.data.tags["provenance.torch"] == "2.13.0"
    expected = {"accuracy/dev": 0.22, "test_by_bucket/bucket_4": 0.11, "accuracy/train_set": 0.9}
    expected |= {"kl/first_token": 1.25}
    expected |= {"change/top_1": 0.71, "train/final_loss": 4 / 3, "train/loss": 4 / 3}
    assert {key: tuned.data.metrics[key] for key in expected} == pytest.approx(expected, rel=1e-5)
    curve = client.get_metric_history(tuned.info.run_id, "train/loss")
    assert [(m.step, m.value) for m in curve] == [(1, 4.0), (2, 2.0), (3, pytest.approx(4 / 3, rel=1e-5))]
    inputs = {d.dataset.name: (d.dataset.digest, d.tags[0].value) for d in tuned.inputs.dataset_inputs}
    assert inputs == {
        "dev": (tables[0].digest[:12], "evaluation"),
        "test": (tables[1].digest[:12], "evaluation"),
        "bucket2-n100-s0": ("c" * 12, "training"),
    }

    restored = client.get_run(study.runs["bucket2-n100-s0/20"]).data
    assert restored.params["restore.region"] == "layers" and restored.params["percent"] == "20"
    assert (restored.metrics["answers_gained/test"], restored.metrics["answers_lost/test"]) == (6.0, 2.0)
    base = client.get_run(study.runs["base-id"])
    assert base.info.run_name == "base · pocket"
    assert base.data.metrics == {"accuracy/test": 0.1, "mastery_test/bucket_4": 12.0}
    assert "base-id" not in study.models and len(study.models) == 3


def test_logged_models_carry_their_metrics_and_the_best_its_files(
    tmp_path: Path, store: Path, model_folder: Path, tables: list[TrackedTable]
) -> None:
    import mlflow
    from mlflow import MlflowClient

    results = results_of(2, 4)
    study = log_study(results, models_of(results, model_folder), TrackingSettings(), store, tables)
    client = MlflowClient(tracking_uri=study.address)
    found = client.search_logged_models(
        [study.experiment_id],
        filter_string="metrics.`accuracy/dev` > 0.4 AND params.kind = 'restored'",
        datasets=[{"dataset_name": "dev", "dataset_digest": tables[0].short_digest}],
        order_by=[{"field_name": "metrics.accuracy/dev", "ascending": False}],
    )
    assert [model.name for model in found] == [
        "bucket4 × 100 · restored 20 percent · seed 0",
        "bucket2 × 100 · restored 20 percent · seed 0",
    ]
    best = found[0]
    assert best.model_type == "restored" and best.status == "READY"
    assert best.source_run_id == study.runs["bucket4-n100-s0/20"]
    metrics = {metric.key: metric for metric in best.metrics}
    assert metrics["accuracy/test"].dataset_name == "test" and "train/loss" not in metrics
    assert [m.tags.get("sftlab.recommended") for m in found] == ["true", None]

    mlflow.set_tracking_uri(study.address)
    folder = Path(
        mlflow.artifacts.download_artifacts(f"models:/{best.model_id}", dst_path=str(tmp_path / "got"))
    )
    assert (folder / "model.safetensors").read_bytes() == bytes(range(64))
    assert found[1].tags["mlflow.model.isExternal"] == "true"
    assert found[1].tags["sftlab.path"] == str(model_folder)


def test_logging_again_changes_nothing(store: Path, model_folder: Path, tables: list[TrackedTable]) -> None:
    results = results_of(2)
    models = models_of(results, model_folder)
    first = log_study(results, models, TrackingSettings(), store, tables)
    before = everything(first)
    again = log_study(results, models, TrackingSettings(), store, tables)
    assert again.written == () and len(first.written) == 4
    assert (again.run_id, again.runs, again.models) == (first.run_id, first.runs, first.models)
    assert everything(again) == before


def test_a_grown_study_adds_only_its_new_models(store: Path, model_folder: Path) -> None:
    from mlflow import MlflowClient

    small, grown = results_of(2), results_of(2, 3)
    first = log_study(small, models_of(small, model_folder), TrackingSettings(), store)
    before = everything(first)["runs"]
    second = log_study(grown, models_of(grown, model_folder), TrackingSettings(), store)
    assert second.run_id == first.run_id
    assert second.written == ("bucket3-n100-s0/0", "bucket3-n100-s0/2.5", "bucket3-n100-s0/20")
    after = everything(second)["runs"]
    assert isinstance(before, dict) and isinstance(after, dict)
    assert all(after[run] == content for run, content in before.items() if run != first.run_id)
    client = MlflowClient(tracking_uri=second.address)
    assert client.get_run(second.run_id).data.metrics["study/models"] == 7
    tags = [client.get_logged_model(second.models[f"bucket{b}-n100-s0/20"]).tags for b in (2, 3)]
    assert [tag["sftlab.recommended"] for tag in tags] == ["no longer", "true"]


def test_numbers_that_changed_replace_their_run(store: Path, model_folder: Path) -> None:
    results = results_of(2)
    models = models_of(results, model_folder)
    first = log_study(results, models, TrackingSettings(), store)
    changed = dataclasses.replace(results, divergence=[DivergenceRow("bucket2-n100-s0", 0.0, 7, 2.5)])
    second = log_study(changed, models, TrackingSettings(), store)
    assert second.written == ("bucket2-n100-s0/0",)
    assert second.runs["bucket2-n100-s0/0"] != first.runs["bucket2-n100-s0/0"]
    assert len(second.models) == 3


class Killed(BaseException):
    """Stands for a kill: nothing may catch it."""


@pytest.mark.parametrize("after_call", ["create_run", "create_logged_model", "log_batch", "set_terminated"])
def test_a_study_killed_in_the_middle_is_completed(
    after_call: str, store: Path, model_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mlflow import MlflowClient

    results = results_of(2)
    models = models_of(results, model_folder)
    real = getattr(MlflowClient, after_call)
    calls = 0

    def killed_after(*args: object, **options: object) -> object:
        nonlocal calls
        answer = real(*args, **options)
        calls += 1
        if calls == 3:
            raise Killed
        return answer

    with monkeypatch.context() as patch:
        patch.setattr(MlflowClient, after_call, killed_after)
        with pytest.raises(Killed):
            log_study(results, models, TrackingSettings(), store)
    study = log_study(results, models, TrackingSettings(), store)
    assert 0 < len(study.written) < len(models)
    client = MlflowClient(tracking_uri=study.address)
    active = client.search_runs([study.experiment_id])
    assert {run.info.run_id for run in active} == {study.run_id, *study.runs.values()}
    assert all(run.info.status == "FINISHED" and "sftlab.complete" in run.data.tags for run in active)
    logged = client.search_logged_models([study.experiment_id])
    assert {model.model_id for model in logged} == set(study.models.values()) and len(logged) == 3
    assert log_study(results, models, TrackingSettings(), store).written == ()


def test_an_interrupt_between_two_models_loses_neither(store: Path, model_folder: Path) -> None:
    results = results_of(2)
    models = models_of(results, model_folder)

    def interrupt(done: int, _total: int) -> None:
        if done == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        log_study(results, models, TrackingSettings(), store, progress=interrupt)
    assert log_study(results, models, TrackingSettings(), store).written == tuple(m.id for m in models[2:])


def test_a_long_curve_is_logged_whole(store: Path, model_folder: Path) -> None:
    from mlflow import MlflowClient

    results = results_of(2, loss_steps=1500)
    study = log_study(results, models_of(results, model_folder), TrackingSettings(), store)
    client = MlflowClient(tracking_uri=study.address)
    history = client.get_metric_history(study.runs["bucket2-n100-s0/0"], "train/loss")
    assert [metric.step for metric in history] == list(range(1, 1501))


def test_a_recommended_model_without_files_is_refused(store: Path, model_folder: Path) -> None:
    results = results_of(2)
    models = [dataclasses.replace(model, path=None) for model in models_of(results, model_folder)]
    with pytest.raises(ValueError, match="its files are missing"):
        log_study(results, models, TrackingSettings(), store)


def test_names_are_those_that_mlflow_takes_and_cuts_are_seen(store: Path) -> None:
    from mlflow import MlflowClient
    from mlflow.utils.validation import (
        _validate_logged_model_name,
        _validate_metric_name,
        _validate_param_name,
    )

    for name in (
        "test/bucket_0",
        "kl (first token): 50%//ä",
        "../..",
        "",
        "/a/",
        "a\nb",
        "x" * 400,
        "model.layers.0",
    ):
        _validate_metric_name(names.key(name))
        _validate_param_name(names.key(name))
        _validate_logged_model_name(names.model_name(name))
        assert len(names.key(name)) <= names.KEY_LENGTH
    assert names.key("test/bucket_0") == "test/bucket_0" and names.model_name("2.5%") == "2_5 percent"
    cut = names.shortened("a" * 50, 30)
    assert cut == "a" * 11 + "_ 39 characters cut" and len(cut) == 30

    results = results_of()
    base = TrackedModel("base-id", params={"prompt": "p" * 9000, "odd key: 100%": 1})
    study = log_study(results, [base], TrackingSettings(), store)
    params = MlflowClient(tracking_uri=study.address).get_run(study.runs["base-id"]).data.params
    assert params["prompt"].endswith("characters cut") and len(params["prompt"]) == names.PARAM_LENGTH
    assert params["odd key_ 100_"] == "1"


def test_values_are_shown_without_the_noise_of_floats() -> None:
    assert rounded(0.1 + 0.2) == 0.3
    assert rounded(12345678.0) == 12345678.0 and rounded(2 / 3) == 0.666667


def test_what_is_not_finite_is_left_out() -> None:
    results = dataclasses.replace(
        results_of(2), divergence=[DivergenceRow("bucket2-n100-s0", 0.0, 0, float("nan"))]
    )
    model = TrackedModel("t", "bucket2-n100-s0", 0.0)
    (record,) = model_records(results, [model], [])
    assert "kl/first_token" not in {row.key for row in record.metrics}


def test_the_grid_alone_may_change_without_another_study() -> None:
    assert study_key(results_of(2)) == study_key(results_of(2, 3))
    other = dataclasses.replace(results_of(2), spec={**SPEC, "sft": {"batch_size": 16}})
    assert study_key(results_of(2)) != study_key(other)
