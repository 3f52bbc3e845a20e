"""MLflow's sqlite file after kills, damage, moves and deletions in MLflow's pages; no Ray."""

from __future__ import annotations

import os
import shutil
import sqlite3
from collections import Counter
from contextlib import closing
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sftlab.errors import UserError
from sftlab.studies.knowledge.tracking.log import log_results
from sftlab.tracking import Tracked, TrackingSettings
from sftlab.tracking.database import (
    fault_of,
    make_database,
    move_locations,
    prepare,
    quarantine_database,
    sqlite_address,
    sqlite_path,
)
from tests.support.tracked_study import base_of, make_model, models_of, results_of
from tests.support.tracked_sweep import MadeUpSweep
from tests.support.tracked_sweep import models_of as models_of_sweep

os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
# An escape, the mark of a query, and what shells, addresses and SQL read otherwise.
ODD = "what? 100%41 #1; 'a' & é"


@pytest.fixture(scope="module")
def database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Made once and copied for the tests."""
    file = tmp_path_factory.mktemp("made") / "mlflow.db"
    make_database(file, "sftlab", {"kind": "test"})
    return file


@pytest.fixture
def store(tmp_path: Path, database: Path) -> Path:
    """Root of a store whose database's uploads are elsewhere: it was copied."""
    folder = tmp_path / ODD
    folder.mkdir()
    shutil.copy(database, folder / "mlflow.db")
    make_model(tmp_path / "model")
    return folder


def client_at(store: Path) -> Any:
    from mlflow import MlflowClient

    address = sqlite_address(store / "mlflow.db")
    return MlflowClient(tracking_uri=address, registry_uri=address)


def logged(store: Path, model: Path, report: Path | None = None) -> Tracked:
    results = results_of(2)
    models = models_of(results, model)
    return log_results(results, base_of(), models, "key", TrackingSettings(), store, report=report)


def logged_sweep(store: Path, model: Path) -> Tracked:
    results = MadeUpSweep().results()
    models = models_of_sweep(results, model)
    return log_results(results, base_of(), models, "key", TrackingSettings(), store, card="# Card\n")


# ---- creation


def test_a_database_has_its_name_only_when_it_is_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

    class Killed(BaseException):
        pass

    def killed(*_: object) -> None:
        raise Killed

    file = tmp_path / "mlflow.db"
    with monkeypatch.context() as patch:
        patch.setattr(SqlAlchemyStore, "create_experiment", killed)
        with pytest.raises(Killed):
            prepare(file, "sftlab", {})
    assert [path.name for path in tmp_path.iterdir()] == [".mlflow.db.lock"]


def broken(file: Path, kind: str) -> None:
    """Break a database as a kill, a full disk or a fault of the disk does."""
    content = file.read_bytes()
    if kind.startswith("bytes "):
        file.write_bytes(content[: int(kind.removeprefix("bytes "))])
    elif kind == "text":
        file.write_text("no database")
    elif kind == "zeroed page":
        page = int.from_bytes(content[16:18], "big")
        file.write_bytes(content[:page] + bytes(2 * page) + content[3 * page :])
    else:
        with closing(sqlite3.connect(file)) as connection, connection:
            connection.execute("PRAGMA foreign_keys = OFF")
            connection.execute(kind)


@pytest.mark.parametrize(
    ("kind", "reason"),
    [
        ("bytes 0", "was interrupted"),
        ("bytes 100", "is damaged"),
        ("bytes 40960", "is damaged"),
        ("text", "is damaged"),
        ("zeroed page", "is damaged"),
        ("DROP TABLE alembic_version", "was interrupted"),
        ("DELETE FROM alembic_version", "was interrupted"),
        ("UPDATE alembic_version SET version_num = '451aebb31d03'", "was interrupted"),
        ("DROP TABLE runs", "was interrupted"),
        ("DROP TABLE logged_models", "was interrupted"),
    ],
)
def test_what_no_command_can_use_is_found(tmp_path: Path, database: Path, kind: str, reason: str) -> None:
    file = tmp_path / "mlflow.db"
    shutil.copy(database, file)
    assert fault_of(file) is None
    broken(file, kind)
    assert reason in str(fault_of(file))


def test_an_unfinished_database_that_holds_runs_is_left_to_mlflow(tmp_path: Path, database: Path) -> None:
    file = tmp_path / "mlflow.db"
    shutil.copy(database, file)
    broken(file, "INSERT INTO runs (run_uuid) VALUES ('r')")
    broken(file, "UPDATE alembic_version SET version_num = '451aebb31d03'")
    assert fault_of(file) is None


def test_a_broken_database_keeps_its_bytes_and_the_study_is_logged_again(
    store: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    file = store / "mlflow.db"
    file.write_bytes(b"broken")
    (store / ".mlflow-left").mkdir()  # of a process that was killed at once while it made a database
    study = logged(store, tmp_path / "model")
    assert len(study.written) == 2
    (quarantined,) = [path for path in store.iterdir() if ".broken-" in path.name]
    assert quarantined.read_bytes() == b"broken" and not (store / ".mlflow-left").exists()
    assert quarantined.name in caplog.text and "file is not a database" in caplog.text
    assert logged(store, tmp_path / "model").written == ()
    experiment = client_at(store).get_experiment(study.experiment_id)
    assert experiment.artifact_location == (store / "mlartifacts").as_uri()
    assert {path.name for path in tmp_path.iterdir()} == {"model", ODD}  # and no folder of the quoted name


def test_a_quarantined_name_is_never_used_twice(tmp_path: Path) -> None:
    names = set()
    for n in range(3):
        (tmp_path / "mlflow.db").write_text(str(n))
        (tmp_path / "mlflow.db-journal").write_text("journal")
        names.add(quarantine_database(tmp_path / "mlflow.db"))
    assert sorted(path.read_text() for path in names) == ["0", "1", "2"]
    assert all(path.with_name(f"{path.name}-journal").exists() for path in names)


# ---- places


@given(st.lists(st.text("aé?%4 1#&;'\"+:@=\\[{$~\n", min_size=1, max_size=8), min_size=1, max_size=3))
def test_a_sqlite_address_names_its_file_for_sqlalchemy(parts: list[str]) -> None:
    from sqlalchemy.engine import make_url

    file = Path("/", *parts)
    assert make_url(sqlite_address(file)).database == str(file)
    assert sqlite_path(sqlite_address(file)) == file
    assert TrackingSettings(address=sqlite_address(file)).sqlite_file(Path()) == file


def test_options_in_a_sqlite_address_are_refused() -> None:
    with pytest.raises(ValueError, match="write %3F for a question mark"):
        TrackingSettings(address="sqlite:////a/b.db?mode=ro")


def test_a_moved_store_has_its_uploads_where_it_is(tmp_path: Path, store: Path) -> None:
    import mlflow
    from mlflow.tracking._tracking_service import utils

    report = tmp_path / "report.html"
    report.write_text("one")
    first = logged(store, tmp_path / "model", report)
    before = client_at(store)
    found = before.search_logged_models([first.experiment_id])
    best = next(m.model_id for m in found if m.tags.get("sftlab.recommended") == "true")
    before.create_registered_model("named")
    place = before.get_logged_model(best).artifact_location
    before.create_model_version("named", place, await_creation_for=0)
    moved = tmp_path / "new # place %20?"
    store.rename(moved)
    utils._artifact_repos_cache.clear()  # MLflow remembers places as long as the process lives
    report.write_text("two")
    second = logged(moved, tmp_path / "model", report)
    assert (second.run_id, second.runs, second.written) == (first.run_id, first.runs, ())
    assert not store.exists()
    client = client_at(moved)
    assert [file.path for file in client.list_artifacts(second.run_id)] == ["report.html"]
    uri = client.get_run(second.run_id).info.artifact_uri
    assert Path(unquote(uri.removeprefix("file://")), "report.html").read_text() == "two"
    mlflow.set_tracking_uri(second.address)
    to = str(tmp_path / "got")
    got = Path(mlflow.artifacts.download_artifacts("models:/named/1", dst_path=to))
    assert (got / "model.safetensors").read_bytes() == bytes(range(64))
    with closing(sqlite3.connect(moved / "mlflow.db")) as connection:
        old = store.as_uri()
        assert not [line for line in connection.iterdump() if old in line]


def test_uploads_that_are_elsewhere_on_purpose_stay(tmp_path: Path, database: Path) -> None:
    file = tmp_path / "alone" / "mlflow.db"
    file.parent.mkdir()
    shutil.copy(database, file)
    kept = tmp_path / "kept" / "mlartifacts"
    kept.mkdir(parents=True)

    def locations() -> set[str]:
        with closing(sqlite3.connect(file)) as connection:
            return {row[0] for row in connection.execute("SELECT artifact_location FROM experiments")}

    old = (database.parent / "mlartifacts").as_uri()
    for place in (
        "s3://bucket/mlartifacts",
        "mlflow-artifacts:/1",
        (tmp_path / "mine").as_uri(),
        kept.as_uri(),
    ):
        with closing(sqlite3.connect(file)) as connection, connection:
            move_locations(connection, "experiments", "artifact_location", old, place)
        before, old = locations(), place
        prepare(file, "sftlab", {})
        assert locations() == before and place in before


def test_only_whole_parts_of_a_path_are_replaced() -> None:
    with closing(sqlite3.connect(":memory:")) as connection:
        connection.execute("CREATE TABLE t (p)")
        values = ["/a/b", "/a/b/c", "/a/bc", "/a/b%", "/x/a/b", None]
        connection.executemany("INSERT INTO t VALUES (?)", [(value,) for value in values])
        move_locations(connection, "t", "p", "/a/b", "/new")
        found = [row[0] for row in connection.execute("SELECT p FROM t")]
    assert found == ["/new", "/new/c", "/a/bc", "/a/b%", "/x/a/b", None]


# ---- what people delete in MLflow's pages


def shown(store: Path) -> tuple[list[str], list[str]]:
    """Names of the runs and of the logged models that MLflow's pages show."""
    client = client_at(store)
    experiment = client.get_experiment_by_name("sftlab").experiment_id
    runs = client.search_runs([experiment], max_results=1000)
    models = client.search_logged_models([experiment], max_results=100)
    active = {run.info.run_id for run in runs}
    assert {model.source_run_id for model in models} <= active, "a logged model without its run"
    parents = {run.data.tags.get("mlflow.parentRunId") for run in runs} - {None}
    assert parents <= active, "a run without its parent"
    return sorted(run.info.run_name for run in runs), sorted(model.name for model in models)


@pytest.mark.parametrize("what", ["parent", "child", "everything", "model", "child and its model", "base"])
def test_what_was_deleted_in_the_pages_comes_back_once(store: Path, tmp_path: Path, what: str) -> None:
    study = logged(store, tmp_path / "model")
    before = shown(store)
    client = client_at(store)
    trial = "restore/bucket2-n100-s0/bucket2-n100-s0/0"
    runs = {
        "parent": [study.run_id],
        "child": [study.runs[trial]],
        "everything": [study.run_id, *study.runs.values()],
        "child and its model": [study.runs[trial]],
        "base": [study.runs["base/base-id"]],
    }
    if "model" in what:
        found = client.search_logged_models([study.experiment_id])
        client.delete_logged_model(next(m.model_id for m in found if m.params["percent"] == "20"))
    for run in runs.get(what, ()):
        client.delete_run(run)
    again = logged(store, tmp_path / "model")
    assert shown(store) == before
    assert set(again.written) == ({trial} if "model" in what else set())
    assert logged(store, tmp_path / "model").written == ()
    assert shown(store) == before


def test_what_was_deleted_of_a_sweep_comes_back_once(store: Path, tmp_path: Path) -> None:
    sweep = logged_sweep(store, tmp_path / "model")
    before = shown(store)
    client = client_at(store)
    star = next(run for run in sweep.runs.values() if client.get_run(run).info.run_name.startswith("★"))
    client.delete_run(star)
    client.delete_run(sweep.run_id)
    client.delete_registered_model("made-up-sweep")
    again = logged_sweep(store, tmp_path / "model")
    assert (again.run_id, again.runs, again.written) == (sweep.run_id, sweep.runs, ())
    assert shown(store) == before
    version = client.get_model_version_by_alias("made-up-sweep", "champion")
    assert version.run_id == star
    client.delete_logged_model(version.tags["sftlab.logged_model"])
    assert len(logged_sweep(store, tmp_path / "model").written) == 1
    assert shown(store) == before
    assert max(Counter(shown(store)[0]).values()) == 1


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "store").write_text("a file")
    with pytest.raises(UserError, match=r"mlflow.db: cannot make the folder of the tracking database"):
        logged(tmp_path / "store", tmp_path / "model")
