"""Real MLflow: a sqlite file, and one real server on loopback. No Ray."""

from __future__ import annotations

import dataclasses
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from pydantic import ValidationError

from sftlab.analysis.choice import choose
from sftlab.analysis.results import (
    AccuracyRow,
    CellRow,
    ConcentrationRow,
    DivergenceRow,
    MasteryRow,
    PairedRow,
    StudyResults,
    TrainingRow,
)
from sftlab.errors import UserError
from sftlab.tracking import (
    TrackedModel,
    TrackedStudy,
    TrackedTable,
    TrackingSettings,
    log_study,
    names,
    table_of,
)
from sftlab.tracking.records import rounded
from sftlab.tracking.study import model_records, study_key

os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")

PERCENTS = (0.0, 2.5, 20.0)
DEV = {0.0: 0.2, 2.5: 0.25, 20.0: 0.5}
SPEC = {
    "sft": {"batch_size": 8, "learning_rate": 1e-5, "lora": None},
    "restore": {"region": "layers", "order": "top", "percents": list(PERCENTS)},
    "training_sets": {"buckets": [2]},
}
TIME = "2026-01-02T03:04:05+00:00"


def cell(bucket: int) -> CellRow:
    return CellRow(f"bucket{bucket}-n100-s0", str(bucket), 100, 0, tokens_per_second=900.0, seconds=2.0)


def results_of(*buckets: int, loss_steps: int = 3) -> StudyResults:
    """A small study: every cell's dev accuracy is DEV, plus a hundredth a bucket; test is half of dev."""
    cells = [cell(bucket) for bucket in buckets]
    accuracy = [AccuracyRow("base", None, None, None, None, "test", None, 10, 1, 0.1)]
    for row, bucket in zip(cells, buckets, strict=True):
        for percent in PERCENTS:
            dev = DEV[percent] + bucket / 100
            for split, value in (("dev", dev), ("test", dev / 2), ("train_set", 0.9)):
                for part in (None, 4):
                    accuracy.append(
                        AccuracyRow(row.cell, row.train_bucket, 100, 0, percent, split, part, 100, 50, value)
                    )
    return StudyResults(
        name="study",
        model="pocket",
        spec={**SPEC, "training_sets": {"buckets": list(buckets)}},
        provenance={"commit": "abc+changes"},
        cells=cells,
        accuracy=accuracy,
        paired=[PairedRow(c.cell, 20.0, "test", bucket, 10, 3, 1) for c in cells for bucket in (0, 1)],
        divergence=[DivergenceRow(c.cell, 0.0, 7, 1.25) for c in cells],
        concentration=[ConcentrationRow(c.cell, 1.0, 0.71) for c in cells],
        mastery=[MasteryRow("test", 4, 12)],
        training=[
            TrainingRow(c.cell, step, 4.0 / step, 1e-5) for c in cells for step in range(1, loss_steps + 1)
        ],
        choice=choose(accuracy),
    )


def models_of(results: StudyResults, folder: Path) -> list[TrackedModel]:
    made = {"time": TIME, "commit": "abc+changes", "torch": "2.13.0"}
    models = [TrackedModel("base-id", provenance=made)]
    for row in results.cells:
        train_set = TrackedTable(row.cell, "c" * 64, "train.parquet", 100, context="training")
        models += [
            TrackedModel(f"{row.cell}/{p:g}", row.cell, p, folder, train_set, provenance=made)
            for p in PERCENTS
        ]
    return models


@pytest.fixture
def model_folder(tmp_path: Path) -> Path:
    folder = tmp_path / "restored"
    folder.mkdir()
    (folder / "config.json").write_text('{"model_type": "llama"}')
    (folder / "model.safetensors").write_bytes(bytes(range(64)))
    return folder


@pytest.fixture
def tables(tmp_path: Path) -> list[TrackedTable]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    found = []
    for split in ("dev", "test"):
        pq.write_table(pa.table({"fact_id": [split, "b"], "hits": [1, 2]}), tmp_path / f"{split}.parquet")
        found.append(table_of(tmp_path / f"{split}.parquet"))
    return found


def everything(study: TrackedStudy) -> dict[str, object]:
    """All that MLflow holds of the experiment: what must not change when a study is logged again."""
    from mlflow import MlflowClient

    client = MlflowClient(tracking_uri=study.address)
    runs = client.search_runs([study.experiment_id], run_view_type=3, max_results=1000)
    models = client.search_logged_models([study.experiment_id], max_results=100)
    return {
        "runs": {
            run.info.run_id: (
                run.info.run_name,
                run.info.status,
                run.info.lifecycle_stage,
                run.data.params,
                run.data.tags,
                {
                    key: [
                        (m.step, m.timestamp, m.value)
                        for m in client.get_metric_history(run.info.run_id, key)
                    ]
                    for key in run.data.metrics
                },
                sorted((d.dataset.name, d.dataset.digest) for d in run.inputs.dataset_inputs),
                [output.model_id for output in run.outputs.model_outputs],
            )
            for run in runs
        },
        "models": {
            m.model_id: (m.name, m.status, m.tags, m.params, [(x.key, x.value) for x in m.metrics or []])
            for m in models
        },
    }


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
    assert (tmp_path / "mlflow.db").is_file() and heard[0] == (0, 4) and heard[-1] == (4, 4)
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
    expected = {"dev/mean": 0.22, "test/bucket_4": 0.11, "train_set/mean": 0.9, "kl/first_token": 1.25}
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
    assert base.data.metrics == {"test/mean": 0.1, "mastery_test/bucket_4": 12.0}
    assert "base-id" not in study.models and len(study.models) == 3


def test_logged_models_carry_their_metrics_and_the_best_its_files(
    tmp_path: Path, model_folder: Path, tables: list[TrackedTable]
) -> None:
    import mlflow
    from mlflow import MlflowClient

    results = results_of(2, 4)
    study = log_study(results, models_of(results, model_folder), TrackingSettings(), tmp_path, tables)
    client = MlflowClient(tracking_uri=study.address)
    found = client.search_logged_models(
        [study.experiment_id],
        filter_string="metrics.`dev/mean` > 0.4 AND params.kind = 'restored'",
        datasets=[{"dataset_name": "dev", "dataset_digest": tables[0].short_digest}],
        order_by=[{"field_name": "metrics.dev/mean", "ascending": False}],
    )
    assert [model.name for model in found] == [
        "bucket4 × 100 · restored 20 percent · seed 0",
        "bucket2 × 100 · restored 20 percent · seed 0",
    ]
    best = found[0]
    assert best.model_type == "restored" and best.status == "READY"
    assert best.source_run_id == study.runs["bucket4-n100-s0/20"]
    metrics = {metric.key: metric for metric in best.metrics}
    assert metrics["test/mean"].dataset_name == "test" and "train/loss" not in metrics
    assert [m.tags.get("sftlab.recommended") for m in found] == ["true", None]

    mlflow.set_tracking_uri(study.address)
    folder = Path(
        mlflow.artifacts.download_artifacts(f"models:/{best.model_id}", dst_path=str(tmp_path / "got"))
    )
    assert (folder / "model.safetensors").read_bytes() == bytes(range(64))
    assert found[1].tags["mlflow.model.isExternal"] == "true"
    assert found[1].tags["sftlab.path"] == str(model_folder)


def test_logging_again_changes_nothing(
    tmp_path: Path, model_folder: Path, tables: list[TrackedTable]
) -> None:
    results = results_of(2)
    models = models_of(results, model_folder)
    first = log_study(results, models, TrackingSettings(), tmp_path, tables)
    before = everything(first)
    again = log_study(results, models, TrackingSettings(), tmp_path, tables)
    assert again.written == () and len(first.written) == 4
    assert (again.run_id, again.runs, again.models) == (first.run_id, first.runs, first.models)
    assert everything(again) == before


def test_a_grown_study_adds_only_its_new_models(tmp_path: Path, model_folder: Path) -> None:
    from mlflow import MlflowClient

    small, grown = results_of(2), results_of(2, 3)
    first = log_study(small, models_of(small, model_folder), TrackingSettings(), tmp_path)
    before = everything(first)["runs"]
    second = log_study(grown, models_of(grown, model_folder), TrackingSettings(), tmp_path)
    assert second.run_id == first.run_id
    assert second.written == ("bucket3-n100-s0/0", "bucket3-n100-s0/2.5", "bucket3-n100-s0/20")
    after = everything(second)["runs"]
    assert isinstance(before, dict) and isinstance(after, dict)
    assert all(after[run] == content for run, content in before.items() if run != first.run_id)
    client = MlflowClient(tracking_uri=second.address)
    assert client.get_run(second.run_id).data.metrics["study/models"] == 7
    tags = [client.get_logged_model(second.models[f"bucket{b}-n100-s0/20"]).tags for b in (2, 3)]
    assert [tag["sftlab.recommended"] for tag in tags] == ["no longer", "true"]


def test_numbers_that_changed_replace_their_run(tmp_path: Path, model_folder: Path) -> None:
    results = results_of(2)
    models = models_of(results, model_folder)
    first = log_study(results, models, TrackingSettings(), tmp_path)
    changed = dataclasses.replace(results, divergence=[DivergenceRow("bucket2-n100-s0", 0.0, 7, 2.5)])
    second = log_study(changed, models, TrackingSettings(), tmp_path)
    assert second.written == ("bucket2-n100-s0/0",)
    assert second.runs["bucket2-n100-s0/0"] != first.runs["bucket2-n100-s0/0"]
    assert len(second.models) == 3


class Killed(BaseException):
    """Stands for a kill: nothing may catch it."""


@pytest.mark.parametrize("after_call", ["create_run", "create_logged_model", "log_batch", "set_terminated"])
def test_a_study_killed_in_the_middle_is_completed(
    after_call: str, tmp_path: Path, model_folder: Path, monkeypatch: pytest.MonkeyPatch
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
            log_study(results, models, TrackingSettings(), tmp_path)
    study = log_study(results, models, TrackingSettings(), tmp_path)
    assert 0 < len(study.written) < len(models)
    client = MlflowClient(tracking_uri=study.address)
    active = client.search_runs([study.experiment_id])
    assert {run.info.run_id for run in active} == {study.run_id, *study.runs.values()}
    assert all(run.info.status == "FINISHED" and "sftlab.complete" in run.data.tags for run in active)
    logged = client.search_logged_models([study.experiment_id])
    assert {model.model_id for model in logged} == set(study.models.values()) and len(logged) == 3
    assert log_study(results, models, TrackingSettings(), tmp_path).written == ()


def test_an_interrupt_between_two_models_loses_neither(tmp_path: Path, model_folder: Path) -> None:
    results = results_of(2)
    models = models_of(results, model_folder)

    def interrupt(done: int, _total: int) -> None:
        if done == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        log_study(results, models, TrackingSettings(), tmp_path, progress=interrupt)
    assert log_study(results, models, TrackingSettings(), tmp_path).written == tuple(m.id for m in models[2:])


def test_a_long_curve_is_logged_whole(tmp_path: Path, model_folder: Path) -> None:
    from mlflow import MlflowClient

    results = results_of(2, loss_steps=1500)
    study = log_study(results, models_of(results, model_folder), TrackingSettings(), tmp_path)
    client = MlflowClient(tracking_uri=study.address)
    history = client.get_metric_history(study.runs["bucket2-n100-s0/0"], "train/loss")
    assert [metric.step for metric in history] == list(range(1, 1501))


def test_a_recommended_model_without_files_is_refused(tmp_path: Path, model_folder: Path) -> None:
    results = results_of(2)
    models = [dataclasses.replace(model, path=None) for model in models_of(results, model_folder)]
    with pytest.raises(ValueError, match="its files are missing"):
        log_study(results, models, TrackingSettings(), tmp_path)


def test_names_are_those_that_mlflow_takes_and_cuts_are_seen(tmp_path: Path) -> None:
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
    study = log_study(results, [base], TrackingSettings(), tmp_path)
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


@pytest.mark.parametrize(
    ("address", "message"),
    [
        ("mlruns", "is no tracking address"),
        ("sqlite:///relative.db", "is no tracking address"),
        ("ftp://host", "is no tracking address"),
        ("http://", "is no tracking address"),
        ("http://user:secret@host:5000", "MLFLOW_TRACKING_USERNAME"),
    ],
)
def test_addresses_that_cannot_work_are_refused(address: str, message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        TrackingSettings(address=address)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.mark.parametrize("kind", ["nobody listens", "never answers", "no such host"])
def test_a_dead_server_is_found_out_within_seconds(kind: str, tmp_path: Path) -> None:
    port = free_port()
    with socket.socket() as silent:
        if kind == "never answers":
            silent.bind(("127.0.0.1", port))
            silent.listen()
        host = "tracking.invalid" if kind == "no such host" else "127.0.0.1"
        address = f"http://{host}:{port}"
        start = time.monotonic()
        with pytest.raises(UserError, match="mlflow server") as caught:
            log_study(results_of(), [TrackedModel("b")], TrackingSettings(address=address), tmp_path)
    assert address in str(caught.value) and time.monotonic() - start < 10


def test_a_file_that_is_no_database_is_named(tmp_path: Path) -> None:
    (tmp_path / "mlflow.db").write_text("not a database, but long enough to be read as one" * 100)
    with pytest.raises(UserError, match=r"mlflow\.db"):
        log_study(results_of(), [TrackedModel("b")], TrackingSettings(), tmp_path)


def test_a_deleted_experiment_is_named(tmp_path: Path) -> None:
    from mlflow import MlflowClient

    study = log_study(results_of(), [TrackedModel("b")], TrackingSettings(), tmp_path)
    MlflowClient(tracking_uri=study.address).delete_experiment(study.experiment_id)
    with pytest.raises(UserError, match="'sftlab' is deleted"):
        log_study(results_of(), [TrackedModel("b")], TrackingSettings(), tmp_path)


@pytest.fixture
def server(tmp_path: Path) -> Iterator[tuple[str, subprocess.Popen[bytes]]]:
    """A real `mlflow server` on loopback, of our own process group."""
    port = free_port()
    command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port)]
    command += ["--workers", "1", "--backend-store-uri", f"sqlite:///{tmp_path}/server.db"]
    command += ["--artifacts-destination", str(tmp_path / "artifacts")]
    log = (tmp_path / "server.log").open("wb")
    process = subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True)
    try:
        deadline = time.monotonic() + 120
        while "Application startup complete" not in (tmp_path / "server.log").read_text():
            assert process.poll() is None and time.monotonic() < deadline, (
                tmp_path / "server.log"
            ).read_text()
            time.sleep(0.5)
        yield f"http://127.0.0.1:{port}", process
    finally:
        if process.poll() is None:
            os.killpg(process.pid, 9)
            process.wait()
        log.close()


@pytest.mark.slow
def test_a_server_is_logged_to_over_http_and_its_death_is_named(
    server: tuple[str, subprocess.Popen[bytes]],
    tmp_path: Path,
    model_folder: Path,
    tables: list[TrackedTable],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    address, process = server
    settings = TrackingSettings(address=address + "/", experiment="on a server")
    results = results_of(2)
    models = models_of(results, model_folder)
    first = log_study(results, models, settings, tmp_path, tables, model_folder / "config.json")
    before = everything(first)
    assert log_study(results, models, settings, tmp_path, tables, model_folder / "config.json").written == ()
    assert everything(first) == before
    assert not (tmp_path / "mlflow.db").exists()
    uploaded = sorted(path.name for path in (tmp_path / "artifacts").rglob("*.*") if path.is_file())
    assert uploaded == ["config.json", "config.json", "model.safetensors"]
    assert first.how_to_look.startswith(f"{address}/#/experiments/")

    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
    grown = results_of(2, 3)

    def die(done: int, _total: int) -> None:
        if done == 5:
            os.killpg(process.pid, 9)
            process.wait()

    with pytest.raises(UserError, match=address):
        log_study(grown, models_of(grown, model_folder), settings, tmp_path, tables, progress=die)
