"""What a study looks like in a real MLflow with a sqlite file; what it shares with a sweep is tested there. No Ray."""

from __future__ import annotations

import dataclasses
import os
import shutil
from pathlib import Path

import pytest

from sftlab.studies.knowledge.results.rows import DivergenceRow
from sftlab.studies.knowledge.tracking.log import log_results
from sftlab.studies.knowledge.tracking.runs import trial_records
from sftlab.tracking import TrackedModel, TrackedTable, TrackingSettings, names
from sftlab.tracking.records import rounded
from tests.support.tracked_study import (
    base_of,
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


def test_a_study_is_a_parent_run_with_a_child_a_cell(
    store: Path, model_folder: Path, tables: list[TrackedTable]
) -> None:
    from mlflow import MlflowClient

    results = results_of(2)
    models = models_of(results, model_folder)
    study = log_results(
        results, base_of(), models, "key", TrackingSettings(), store, tables=tables, card="# Card"
    )
    client = MlflowClient(tracking_uri=study.address, registry_uri=study.address)

    parent = client.get_run(study.run_id)
    assert (parent.info.run_name, parent.info.status) == ("study", "FINISHED")
    assert (parent.data.tags["sftlab.kind"], parent.data.tags["sftlab.study"]) == ("study", "key")
    assert parent.data.params == {"study": "study", "model": "pocket"}
    metrics = {"study/cells": 1, "study/models": 3, "recommended/percent": 20.0, "common/percent": 20.0}
    assert metrics.items() <= parent.data.metrics.items()

    run = client.get_run(study.runs["restore/bucket2-n100-s0/bucket2-n100-s0/0"])
    assert run.info.run_name == "★ b2-n100-s0 · restore"
    assert run.info.end_time - run.info.start_time == 2000
    params = {
        "study": "study",
        "train_bucket": "2",
        "size": "100",
        "set_seed": "0",
        "restore.region": "layers",
    }
    assert (params | {"sft.batch_size": "8", "sft.learning_rate": "1e-05"}).items() <= run.data.params.items()
    ladder = {m.step: m.value for m in client.get_metric_history(run.info.run_id, "accuracy/dev")}
    assert ladder == pytest.approx({0: 0.22, 3: 0.27, 20: 0.52})
    expected = {"answers_gained/test": 6.0, "answers_lost/test": 2.0, "kl/first_token": 1.25}
    expected |= {"weights/change_in_top_percent": 0.71, "train/final_loss": 4 / 3, "chosen/percent": 20.0}
    assert {key: run.data.metrics[key] for key in expected} == pytest.approx(expected, rel=1e-5)
    base = client.get_run(study.runs["base/base-id"])
    assert base.data.metrics == {"accuracy/test": 0.1, "mastery_test/bucket_4": 12.0}
    assert study.champion == "models:/study@champion"
    assert client.get_registered_model("study").description == "Recommended by the study study."


def test_a_study_and_a_sweep_of_one_name_have_their_own_parents(store: Path, model_folder: Path) -> None:
    study = results_of(2)
    sweep = dataclasses.replace(study, kind="sweep")
    runs = [
        log_results(found, base_of(), models_of(found, model_folder), "key", TrackingSettings(), store).run_id
        for found in (study, sweep, study)
    ]
    assert runs[0] == runs[2] != runs[1]


def test_a_long_curve_is_logged_whole(store: Path, model_folder: Path) -> None:
    from mlflow import MlflowClient

    results = results_of(2, loss_steps=1500)
    models = models_of(results, model_folder)
    study = log_results(results, base_of(), models, "key", TrackingSettings(), store)
    client = MlflowClient(tracking_uri=study.address)
    run = study.runs["restore/bucket2-n100-s0/bucket2-n100-s0/0"]
    assert [m.step for m in client.get_metric_history(run, "train/loss")] == list(range(1, 1501))


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

    results = dataclasses.replace(results_of(2), choice=[])
    model = TrackedModel("t", "bucket2-n100-s0", 0.0, params={"prompt": "p" * 9000, "odd key: 100%": 1})
    study = log_results(results, base_of(), {"restore": [model]}, "key", TrackingSettings(), store)
    client = MlflowClient(tracking_uri=study.address)
    (logged,) = client.search_logged_models([study.experiment_id])
    params = logged.params
    assert params["prompt"].endswith("characters cut") and len(params["prompt"]) == names.PARAM_LENGTH
    assert params["odd key_ 100_"] == "1"


def test_values_are_shown_without_the_noise_of_floats() -> None:
    assert rounded(0.1 + 0.2) == 0.3
    assert rounded(12345678.0) == 12345678.0 and rounded(2 / 3) == 0.666667


def test_what_is_not_finite_is_left_out() -> None:
    results = results_of(2)
    odd = [DivergenceRow("bucket2-n100-s0", 0.0, 0, float("nan"))]
    results = dataclasses.replace(
        results, variants=[dataclasses.replace(results.variants[0], divergence=odd)]
    )
    model = TrackedModel("t", "bucket2-n100-s0", 0.0)
    (record,) = trial_records(results, {"restore": [model]}, [])
    assert "kl/first_token" not in {row.key for row in record.models[0].metrics}
