"""What every writer to MLflow needs: a connection, its refusals as messages, calls in MLflow's sizes."""

from __future__ import annotations

import json
import logging
import os
import sqlite3
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from sftlab.errors import UserError
from sftlab.shell import command
from sftlab.store.mirror import display_path
from sftlab.tracking import database, names
from sftlab.tracking.records import MetricRow, ParentRecord, TrackedTable
from sftlab.tracking.settings import TrackingSettings, probe

if TYPE_CHECKING:
    from mlflow import MlflowClient

ARTIFACT = "sftlab.artifact"
COMPLETE = "sftlab.complete"
FILES = "sftlab.files"
RECOMMENDED = "sftlab.recommended"
PARENT = "mlflow.parentRunId"
EXTERNAL = "mlflow.model.isExternal"
# Without it the user interface opens as for agents and traces.
EXPERIMENT_TAGS = {"mlflow.experimentKind": "custom_model_development"}
_PREPARED: set[tuple[Path, int, int]] = set()


@contextmanager
def refusals(settings: TrackingSettings, store: Path) -> Iterator[None]:
    """What MLflow or its server refuses becomes a message; a wrong call of ours stays a traceback."""
    _set_environment()
    from google.protobuf.json_format import ParseError  # type: ignore[import-untyped]
    from mlflow.exceptions import MlflowException
    from sqlalchemy.exc import SQLAlchemyError

    try:
        yield
    # The last two are protobuf's, for answers that hold infinite numbers or half characters.
    except (
        MlflowException,
        SQLAlchemyError,
        sqlite3.Error,
        OSError,
        ParseError,
        OverflowError,
        SystemError,
    ) as error:
        if isinstance(error, MlflowException) and error.error_code == "INVALID_PARAMETER_VALUE":
            raise
        reason = str(error).strip().splitlines()[0][:500]
        address = settings.address or str(settings.sqlite_file(store))
        raise UserError(
            reason,
            place=f"MLflow at {address}",
            advice="runs logged so far are kept; run the same command again to go on.",
        ) from error
    finally:
        if not settings.is_server:
            database.remove_stray_folder(database.sqlite_address(settings.sqlite_file(store)))


@dataclass
class Connection:
    """A client and the experiment that all runs go to."""

    client: MlflowClient
    experiment_id: str

    @classmethod
    def connect(cls, settings: TrackingSettings, store: Path) -> Self:
        """Raises UserError where no server answers or the experiment is deleted."""
        if settings.is_server:
            assert settings.address is not None
            probe(settings.address)
        uri = settings.uri(store)
        if not settings.is_server:
            prepare_once(settings.sqlite_file(store), settings.experiment)
        client = _client(uri)
        found = client.get_experiment_by_name(settings.experiment)
        if found is None:
            made = client.create_experiment(
                settings.experiment, artifact_location=settings.artifact_location(store), tags=EXPERIMENT_TAGS
            )
            return cls(client, str(made))
        if found.lifecycle_stage != "active":
            words = ("mlflow", "experiments", "restore", "--experiment-id", str(found.experiment_id))
            raise UserError(
                f"the experiment {settings.experiment!r} is deleted",
                place=f"MLflow at {uri}",
                value=settings.experiment,
                advice=f"restore it with `{command(*words)}` or choose another tracking.experiment.",
            )
        return cls(client, str(found.experiment_id))

    # ---- the parent run

    def open_parent(self, parent: ParentRecord, start_ms: int) -> tuple[str, bool]:
        """The parent run's id, made where it is missing, and whether it is complete and up to date.

        It is found again by its tag, in MLflow's trash too.
        """
        found = self.search_runs(f"tags.`{parent.tag}` = '{parent.key}'", deleted=True)
        if found:
            run = min(found, key=lambda run: (_is_deleted(run), run.info.start_time, run.info.run_id))
            if _is_deleted(run):
                self.client.restore_run(run.info.run_id)
            return str(run.info.run_id), run.data.tags.get(COMPLETE) == parent.digest()
        tags = {parent.tag: parent.key, "mlflow.source.name": "sftlab"}
        run = self.client.create_run(self.experiment_id, start_time=start_ms, tags=tags, run_name=parent.name)
        return str(run.info.run_id), False

    def close_parent(self, parent: ParentRecord, run_id: str, end_ms: int, link: str = "") -> None:
        """Bring the parent run's summary up to date; its commit mark comes last. `link` begins the description."""
        from mlflow.entities import Param, RunTag

        client = self.client
        client.update_run(run_id, status="RUNNING", name=parent.name)
        known = client.get_run(run_id).data.params
        self.log_tables(run_id, parent.tables)
        params = [Param(k, v) for k, v in accepted_params(parent.params).items() if k not in known]
        client.log_batch(run_id, metrics=self.metrics(parent.metrics, parent.tables, now_ms()), params=params)
        tags = accepted_tags({**parent.tags, "mlflow.note.content": link + parent.note})
        client.log_batch(run_id, tags=[RunTag(key, value) for key, value in tags.items()])
        if parent.report is not None:
            client.log_artifact(run_id, str(parent.report))
        client.set_terminated(run_id, "FINISHED", end_time=end_ms)
        client.set_tag(run_id, COMPLETE, parent.digest())

    def logged_runs(self, parent: str, tag: str) -> dict[str, list[Any]]:
        """Child runs of the parent by the value of a tag, complete or not, those in MLflow's trash too."""
        found: dict[str, list[Any]] = {}
        for run in self.search_runs(f"tags.`{PARENT}` = '{parent}'", deleted=True):
            found.setdefault(run.data.tags.get(tag, ""), []).append(run)
        return found

    def keep(self, runs: Sequence[Any], digest: str, models: int) -> str | None:
        """Id of the run that is complete and up to date with its number of logged models; None without one.

        All other runs are deleted. A complete run that someone deleted is restored where no other one is left.
        """
        kept: str | None = None
        for run in sorted(runs, key=_is_deleted):
            run_id, deleted = str(run.info.run_id), _is_deleted(run)
            complete = run.data.tags.get(COMPLETE) == digest
            if kept is None and complete and (not models or self.models_by_run[run_id] >= models):
                kept = run_id
                if deleted:
                    self.client.restore_run(run_id)
            elif not deleted or self.models_by_run[run_id]:
                self.delete(run_id, only_models=deleted)
        return kept

    @cached_property
    def models_by_run(self) -> Counter[str]:
        """How many logged models each run has, when it is first asked for."""
        return Counter(str(model.source_run_id) for model in self.search_models())

    def delete(self, run_id: str, only_models: bool = False) -> None:
        """Move a run that was cut off or is out of date to MLflow's trash, its logged models with it."""
        for model in self.search_models(f"source_run_id = '{run_id}'"):
            self.client.delete_logged_model(model.model_id)
        if not only_models:
            self.client.delete_run(run_id)

    # ---- calls in MLflow's sizes

    def search_runs(self, filter_string: str, deleted: bool = False) -> list[Any]:
        """Runs that a filter lets through; `deleted`: those in MLflow's trash too."""
        from mlflow.entities import ViewType

        view = ViewType.ALL if deleted else ViewType.ACTIVE_ONLY
        return _all_pages(
            lambda token: self.client.search_runs(
                [self.experiment_id], filter_string, view, 1000, None, token
            )
        )

    def search_models(self, filter_string: str | None = None) -> list[Any]:
        return _all_pages(
            lambda token: self.client.search_logged_models(
                [self.experiment_id], filter_string=filter_string, max_results=100, page_token=token
            )
        )

    def log_tables(self, run_id: str, tables: Sequence[TrackedTable]) -> None:
        if tables:
            self.client.log_inputs(run_id, datasets=[_dataset_input(table) for table in tables])

    @staticmethod
    def metrics(
        rows: Sequence[MetricRow],
        tables: Sequence[TrackedTable],
        time_ms: int,
        model_id: str | None = None,
        step: int | None = None,
    ) -> list[Any]:
        """MLflow's metrics, each with its table and, if given, its logged model; `step` in place of the rows'."""
        from mlflow.entities import Metric

        digests = {table.name: table.short_digest for table in tables}
        return [
            Metric(
                row.key,
                row.value,
                time_ms,
                row.step if step is None else step,
                model_id=None if row.curve else model_id,
                dataset_name=row.table if row.table in digests else None,
                dataset_digest=digests.get(row.table or ""),
            )
            for row in rows
        ]


def _is_deleted(run: Any) -> bool:
    return str(run.info.lifecycle_stage) == "deleted"


def _all_pages(ask: Callable[[str | None], Any]) -> list[Any]:
    """What a search finds, page after page. Raises UserError where the server starts over: it would never end."""
    found: list[Any] = []
    seen: set[str] = set()
    token: str | None = None
    while True:
        page = ask(token)
        found += page
        token = page.token
        if not token:
            return found
        if token in seen:
            raise UserError(
                "the server gives the same page again and again", place="MLflow", advice="it is not sound."
            )
        seen.add(token)


def _set_environment() -> None:
    """What MLflow reads at import and at each request; the user's own settings are kept."""
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    # Otherwise two lines for every run that ends.
    os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")
    # A server that dies in mid-study is given up after half a minute instead of four.
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "3")


def prepare_once(file: Path, experiment: str) -> None:
    """Prepare a sqlite file when this process first uses it, and again where another file has its place."""
    identity = (file, file.stat().st_dev, file.stat().st_ino) if file.exists() else None
    if identity is None or identity not in _PREPARED:
        database.prepare(file, experiment, EXPERIMENT_TAGS)
        _PREPARED.add((file, file.stat().st_dev, file.stat().st_ino))


def _client(uri: str) -> MlflowClient:
    import mlflow

    for noisy in database.NOISY:
        logging.getLogger(noisy).setLevel(logging.WARNING)
    return mlflow.MlflowClient(tracking_uri=uri, registry_uri=uri)


def _dataset_input(table: TrackedTable) -> Any:
    from mlflow.entities import Dataset, DatasetInput, InputTag

    columns = [{"name": name, "type": kind, "required": True} for name, kind in table.columns.items()]
    dataset = Dataset(
        name=table.name,
        digest=table.short_digest,
        source_type="local",
        source=json.dumps({"uri": display_path(table.path)}),
        schema=json.dumps({"mlflow_colspec": columns}) if columns else None,
        profile=json.dumps({"num_rows": table.rows}),
    )
    return DatasetInput(dataset, tags=[InputTag("mlflow.data.context", table.context)])


def accepted_params(params: Mapping[str, str]) -> dict[str, str]:
    return {names.key(k): names.shortened(v, names.PARAM_LENGTH) for k, v in params.items()}


def accepted_tags(tags: Mapping[str, str]) -> dict[str, str]:
    return {names.key(k): names.shortened(v, names.TAG_LENGTH) for k, v in tags.items()}


def now_ms() -> int:
    return int(time.time() * 1000)
