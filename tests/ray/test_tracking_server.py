"""Addresses that cannot work, and a real MLflow server on loopback; no Ray."""

from __future__ import annotations

import os
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from pydantic import ValidationError

from sftlab.errors import UserError
from sftlab.studies.knowledge.results.tables import Results
from sftlab.studies.knowledge.tracking.log import log_results
from sftlab.tracking import Tracked, TrackedModel, TrackingSettings
from tests.support.mlflow_server import free_port, serve
from tests.support.planted import PLANTED, SECRETS, holders
from tests.support.tracked_study import (
    base_of,
    everything,
    make_database,
    make_model,
    make_tables,
    models_of,
    results_of,
)

os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")


def log_nothing(settings: TrackingSettings, store: Path) -> Tracked:
    return log_results(Results("empty", "none"), TrackedModel("b"), {}, "key", settings, store)


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


@pytest.mark.parametrize("kind", ["nobody listens", "never answers", "no such host"])
def test_a_dead_server_is_found_out_before_mlflow_s_client_asks_it(kind: str, tmp_path: Path) -> None:
    port = free_port()
    with socket.socket() as silent:
        if kind == "never answers":
            silent.bind(("127.0.0.1", port))
            silent.listen()
        host = "tracking.invalid" if kind == "no such host" else "127.0.0.1"
        address = f"http://{host}:{port}"
        # MLflow's client, which tries again for minutes, is not asked.
        with pytest.raises(UserError, match=r"no MLflow server answers there .*`mlflow server ") as caught:
            log_results(
                Results("empty", "none"),
                TrackedModel("b"),
                {},
                "key",
                TrackingSettings(address=address),
                tmp_path,
            )
    assert address in str(caught.value)


def test_a_deleted_experiment_is_named(tmp_path: Path) -> None:
    from mlflow import MlflowClient

    study = log_nothing(TrackingSettings(), tmp_path)
    MlflowClient(tracking_uri=study.address).delete_experiment(study.experiment_id)
    with pytest.raises(UserError, match="'sftlab' is deleted"):
        log_nothing(TrackingSettings(), tmp_path)


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[str, subprocess.Popen[bytes]]]:
    """A real `mlflow server` on loopback, of our own process group; secrets in its environment and the client's."""
    for name, value in {**PLANTED, "MLFLOW_TRACKING_USERNAME": "user"}.items():
        monkeypatch.setenv(name, value)
    database = make_database(tmp_path).rename(tmp_path / "server.db")
    with serve(database, tmp_path / "artifacts", free_port()) as running:
        yield running


@pytest.mark.slow
def test_a_server_is_logged_to_over_http_and_its_death_is_named(
    server: tuple[str, subprocess.Popen[bytes]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    address, process = server
    model_folder, tables = make_model(tmp_path / "restored"), make_tables(tmp_path)
    settings = TrackingSettings(address=address + "/", experiment="on a server")
    results = results_of(2)
    models = models_of(results, model_folder)
    first = log_results(
        results,
        base_of(),
        models,
        "key",
        settings,
        tmp_path,
        tables=tables,
        report=model_folder / "config.json",
    )
    before = everything(first)
    assert (
        log_results(
            results,
            base_of(),
            models,
            "key",
            settings,
            tmp_path,
            tables=tables,
            report=model_folder / "config.json",
        ).written
        == ()
    )
    assert everything(first) == before
    assert not (tmp_path / "mlflow.db").exists()
    uploaded = sorted(path.name for path in (tmp_path / "artifacts").rglob("*.*") if path.is_file())
    assert uploaded == ["README.md", "config.json", "config.json", "model.safetensors"]
    assert first.how_to_look.startswith(f"{address}/#/experiments/")

    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
    grown = results_of(2, 3)

    def die(done: int, _total: int) -> None:
        if done == 2:
            os.killpg(process.pid, 9)
            process.wait()

    with pytest.raises(UserError, match=address):
        log_results(
            grown,
            base_of(),
            models_of(grown, model_folder),
            "key",
            settings,
            tmp_path,
            tables=tables,
            progress=die,
        )
    written = {path.name for path in tmp_path.rglob("*")}
    assert {"server.db", "server.log", "model.safetensors"} <= written
    assert holders(tmp_path, SECRETS) == []
