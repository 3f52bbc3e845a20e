"""A sweep on a real MLflow server: its death, and its pages in a real browser."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import cast
from urllib.parse import quote

import pytest

from sftlab.errors import UserError
from sftlab.studies.knowledge.results.tables import Results
from sftlab.studies.knowledge.sweep.trials import Trial
from sftlab.studies.knowledge.tracking.log import log_results, log_trials
from sftlab.sweeps.live import LiveTracking
from sftlab.tracking import Tracked, TrackingSettings
from tests.support.mlflow_server import browser, dom, free_port, serve
from tests.support.tracked_study import make_database, make_model
from tests.support.tracked_sweep import MadeUpSweep, base_of, models_of

os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
pytestmark = pytest.mark.slow


def test_a_server_that_goes_away_in_the_middle_is_logged_to_when_it_is_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mlflow import MlflowClient

    database = make_database(tmp_path).rename(tmp_path / "server.db")
    port = free_port()
    results = MadeUpSweep(buckets=(4,), strategies=("restore",)).results()
    models = models_of(results, make_model(tmp_path / "model"))

    def log(address: str, **options: object) -> Tracked:
        settings = TrackingSettings(address=address)
        return log_results(results, base_of(), models, "key", settings, tmp_path, card="# C\n", **options)  # type: ignore[arg-type]

    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
    with serve(database, tmp_path / "artifacts", port) as (address, process):

        def die(done: int, _total: int) -> None:
            if done == 2:
                os.killpg(process.pid, 9)
                process.wait()

        with pytest.raises(UserError, match=r"(?s)127\.0\.0\.1.*runs logged so far are kept"):
            log(address, progress=die)
        with pytest.raises(UserError, match="no MLflow server answers"):
            log(address)
    with serve(database, tmp_path / "artifacts", port) as (address, _):
        sweep = log(address)
        assert 0 < len(sweep.written) < 3
        client = MlflowClient(tracking_uri=address, registry_uri=address)
        runs = client.search_runs([sweep.experiment_id])
        assert {run.info.run_id for run in runs} == {sweep.run_id, *sweep.runs.values()}
        assert len(client.search_logged_models([sweep.experiment_id])) == 8
        (version,) = client.search_model_versions("name = 'made-up-sweep'")
        champion = client.get_model_version_by_alias("made-up-sweep", "champion")
        assert champion.version == version.version
        uploaded = {path.name for path in (tmp_path / "artifacts").rglob("*.*") if path.is_file()}
        assert uploaded == {"config.json", "model.safetensors", "README.md"}
        assert log(address).written == ()


def test_a_running_sweep_is_logged_while_its_server_dies_and_comes_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mlflow import MlflowClient

    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
    database = make_database(tmp_path).rename(tmp_path / "server.db")
    port = free_port()
    results = MadeUpSweep(buckets=(0, 4), seeds=(0, 1), strategies=("restore",)).results()
    models = models_of(results, make_model(tmp_path / "model"))
    settings = TrackingSettings(address=f"http://127.0.0.1:{port}")
    cells = [cell.cell for cell in results.variants[0].cells]
    written: list[str] = []

    def write(names: Sequence[Trial]) -> None:
        """The trials of these cells, from the tables of a sweep that holds no others."""
        (variant,) = results.variants
        own = [cell for cell in variant.cells if cell.cell in set(names)]  # type: ignore[comparison-overlap]
        part = Results(
            results.name,
            results.model,
            variants=[replace(variant, cells=own)],
            choice=[row for row in results.choice if row.cell in {cell.cell for cell in own}],
        )
        mine = {"restore": [model for model in models["restore"] if model.cell in {c.cell for c in own}]}
        written.extend(log_trials(part, mine, "key", settings, tmp_path))

    said: list[str] = []
    live = LiveTracking(write, said.append, 0.05, 0.2)
    with serve(database, tmp_path / "artifacts", port) as (_, process):
        live.start()
        live.add(cast(Trial, cells[0]))
        until(lambda: live.logged == 1)
        os.killpg(process.pid, 9)
        process.wait()
        live.add(cast(Trial, cells[1]))
        live.add(cast(Trial, cells[2]))
        until(lambda: bool(said))
        assert "The sweep goes on" in said[0] and str(port) in said[0]
    with serve(database, tmp_path / "artifacts", port) as (address, _):
        until(lambda: live.logged == 3)
        live.stop()
        assert len(written) == len(set(written)) == 3 and "MLflow is back" in said[-1]
        sweep = log_results(results, base_of(), models, "key", settings, tmp_path, card="# C\n")
        assert set(sweep.written) == {*sweep.runs} - {*written}  # the fourth trial and the base model
        client = MlflowClient(tracking_uri=address, registry_uri=address)
        runs = client.search_runs([sweep.experiment_id])
        assert {run.info.run_id for run in runs} == {sweep.run_id, *sweep.runs.values()}
        assert {run.info.status for run in runs} == {"FINISHED"}
        assert len(client.search_logged_models([sweep.experiment_id])) == len(models["restore"])
        assert log_results(results, base_of(), models, "key", settings, tmp_path, card="# C\n").written == ()


def until(reached: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 120
    while not reached():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_a_browser_shows_the_comparison_with_its_charts_and_the_winner(tmp_path: Path) -> None:
    from mlflow import MlflowClient

    browser()
    database = make_database(tmp_path)
    results = MadeUpSweep().results()
    models = models_of(results, make_model(tmp_path / "model"))
    sweep = log_results(results, base_of(), models, "key", TrackingSettings(), tmp_path, card="# Card\n")
    client = MlflowClient(tracking_uri=sweep.address)
    runs = client.search_runs([sweep.experiment_id], "tags.`sftlab.kind` = 'trial'")
    compared = [run.info.run_id for run in runs if "-s0 · restore" in run.info.run_name]
    with serve(database, tmp_path / "mlartifacts", free_port()) as (address, _):
        charts = dom(address + sweep.page, tmp_path)
        assert "★ b4-n100-s0 · restore" in charts
        for name in (
            "accuracy/test",
            "accuracy/test_ood",
            "chosen/dev",
            "chosen/gain_test",
            "kl/first_token",
        ):
            assert f'title="{name}"' in charts, name
        # Plotly draws a line for each of the ten trials shown, in each chart; without data there are frames alone.
        assert charts.count('class="js-line"') >= 5 * 10

        ids, experiments = (quote(json.dumps(part)) for part in (compared, [sweep.experiment_id]))
        page = dom(f"{address}/#/compare-runs?runs={ids}&experiments={experiments}", tmp_path)
        assert "Comparing 2 Runs" in page and "★ b4-n100-s0 · restore" in page
        assert 'class="parcoords"' in page and "chosen/dev" in page

        registry = dom(f"{address}/#/models/made-up-sweep", tmp_path)
        assert "champion" in registry and "Version 1" in registry
        table = dom(f"{address}/#/experiments/{sweep.experiment_id}/models", tmp_path)
        assert "b4-n100-s1 · restore 10 percent" in table and "accuracy/dev" in table
