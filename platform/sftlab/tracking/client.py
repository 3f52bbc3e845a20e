"""The MLflow shell: writes the records of a study; finds what is written already.

Every run carries its record's digest in the tag `sftlab.complete`, set last: its presence is the commit. A
run without it was cut off, and one with another digest is out of date; both are deleted and written anew.
"""

from __future__ import annotations

import json
import logging
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from sftlab.errors import UserError
from sftlab.tracking import names
from sftlab.tracking.records import ModelRecord, StudyRecord, TrackedTable
from sftlab.tracking.settings import TrackingSettings, probe

if TYPE_CHECKING:
    from mlflow import MlflowClient

STUDY = "sftlab.study"
ARTIFACT = "sftlab.artifact"
COMPLETE = "sftlab.complete"
FILES = "sftlab.files"
RECOMMENDED = "sftlab.recommended"
PARENT = "mlflow.parentRunId"
EXTERNAL = "mlflow.model.isExternal"
# Without it the user interface opens as for agents and traces.
EXPERIMENT_TAGS = {"mlflow.experimentKind": "custom_model_development"}


@dataclass(frozen=True)
class TrackedStudy:
    """Where a study stands in MLflow; run and model ids by the artifact id of the model."""

    address: str
    experiment_id: str
    run_id: str
    runs: Mapping[str, str]
    models: Mapping[str, str]
    written: Sequence[str] = field(default=())

    @property
    def how_to_look(self) -> str:
        """Address of the runs' page, or the command that serves it."""
        page = f"/#/experiments/{self.experiment_id}/runs?workflowType=machine_learning"
        if self.address.startswith("sqlite:"):
            return f"mlflow ui --backend-store-uri {self.address}  (then open {page})"
        return self.address + page


def write_study(
    study: StudyRecord,
    models: Sequence[ModelRecord],
    settings: TrackingSettings,
    store: Path,
    progress: Callable[[int, int], None] | None = None,
) -> TrackedStudy:
    """Log what MLflow does not hold yet; logging the same records again writes nothing.

    `store` is the folder below which the sqlite file lies where the settings name no address. `progress`
    hears the number of models that are in MLflow, and of all. Raises UserError where MLflow cannot be
    reached or refuses.
    """
    _set_environment()
    with _refusals(settings.address or str(settings.sqlite_file(store))):
        writer = _Writer.connect(settings, store)
        times = [model.end_ms for model in models if model.end_ms is not None] or [_now_ms()]
        run_id, parent_complete = writer.open_study(study, min(times))
        known = writer.logged_runs(run_id)
        runs: dict[str, str] = {}
        written: list[str] = []
        for done, model in enumerate(models):
            if progress:
                progress(done, len(models))
            runs[model.artifact], is_new = writer.keep_or_write(model, study.name, run_id, known)
            written += [model.artifact] if is_new else []
        logged = writer.logged_models(runs)
        if study.best is not None:
            paths = {model.artifact: model.path for model in models}
            writer.recommend(study.best, paths.get(study.best), logged)
        if written or not parent_complete:
            writer.close_study(study, run_id, max(times))
        if progress:
            progress(len(models), len(models))
    ids = {artifact: str(model.model_id) for artifact, model in logged.items()}
    return TrackedStudy(settings.uri(store), writer.experiment_id, run_id, runs, ids, tuple(written))


@contextmanager
def _refusals(address: str) -> Iterator[None]:
    """What MLflow or its server refuses becomes a message; a wrong call of ours stays a traceback."""
    from mlflow.exceptions import MlflowException
    from sqlalchemy.exc import SQLAlchemyError

    try:
        yield
    except (MlflowException, SQLAlchemyError, OSError) as error:
        if isinstance(error, MlflowException) and error.error_code == "INVALID_PARAMETER_VALUE":
            raise
        reason = str(error).strip().splitlines()[0][:500]
        raise UserError(
            f"MLflow at {address}: {reason}\nRuns logged so far stand; run the same command again to go on."
        ) from error


@dataclass
class _Writer:
    client: MlflowClient
    experiment_id: str

    @classmethod
    def connect(cls, settings: TrackingSettings, store: Path) -> _Writer:
        if settings.is_server:
            assert settings.address is not None
            probe(settings.address)
        uri = settings.uri(store)
        client = _client(uri)
        found = client.get_experiment_by_name(settings.experiment)
        if found is None:
            made = client.create_experiment(
                settings.experiment, artifact_location=settings.artifact_location(store), tags=EXPERIMENT_TAGS
            )
            return cls(client, str(made))
        if found.lifecycle_stage != "active":
            raise UserError(
                f"MLflow at {uri}: the experiment {settings.experiment!r} is deleted; restore it with "
                f"`mlflow experiments restore --experiment-id {found.experiment_id}` or choose another "
                "tracking.experiment."
            )
        return cls(client, str(found.experiment_id))

    # ---- the parent run

    def open_study(self, study: StudyRecord, start_ms: int) -> tuple[str, bool]:
        """The parent run's id, made where it is missing, and whether it is complete and up to date."""
        found = self.search_runs(f"tags.`{STUDY}` = '{study.key}'")
        if found:
            run = min(found, key=lambda run: (run.info.start_time, run.info.run_id))
            return str(run.info.run_id), run.data.tags.get(COMPLETE) == study.digest()
        tags = {STUDY: study.key, "mlflow.source.name": "sftlab"}
        run = self.client.create_run(self.experiment_id, start_time=start_ms, tags=tags, run_name=study.name)
        return str(run.info.run_id), False

    def close_study(self, study: StudyRecord, run_id: str, end_ms: int) -> None:
        """Bring the parent run's summary up to date; its commit mark comes last."""
        from mlflow.entities import RunTag

        client = self.client
        client.update_run(run_id, status="RUNNING", name=study.name)
        known = client.get_run(run_id).data.params
        self.log_content(run_id, study, _now_ms(), known_params=known)
        tags = _tags({**study.tags, "mlflow.note.content": study.note})
        client.log_batch(run_id, tags=[RunTag(key, value) for key, value in tags.items()])
        if study.report is not None:
            client.log_artifact(run_id, str(study.report))
        client.set_terminated(run_id, "FINISHED", end_time=end_ms)
        client.set_tag(run_id, COMPLETE, study.digest())

    # ---- the models

    def logged_runs(self, parent: str) -> dict[str, list[Any]]:
        """Child runs of the parent by artifact id, complete or not."""
        found: dict[str, list[Any]] = {}
        for run in self.search_runs(f"tags.`{PARENT}` = '{parent}'"):
            found.setdefault(run.data.tags.get(ARTIFACT, ""), []).append(run)
        return found

    def keep_or_write(
        self, model: ModelRecord, study: str, parent: str, known: Mapping[str, Sequence[Any]]
    ) -> tuple[str, bool]:
        """Id of the model's run, and whether it had to be written."""
        digest = model.digest()
        kept: str | None = None
        for run in known.get(model.artifact, ()):
            if kept is None and run.data.tags.get(COMPLETE) == digest:
                kept = str(run.info.run_id)
            else:
                self.delete(str(run.info.run_id))
        return (kept, False) if kept else (self.write(model, study, parent, digest), True)

    def write(self, model: ModelRecord, study: str, parent: str, digest: str) -> str:
        client = self.client
        end_ms = model.end_ms or _now_ms()
        start_ms = end_ms - round(1000 * model.seconds)
        tags = {
            **_tags(model.tags),
            PARENT: parent,
            ARTIFACT: model.artifact,
            "sftlab.kind": model.kind,
            "sftlab.study_name": study,
            "mlflow.source.name": "sftlab",
        }
        run = client.create_run(self.experiment_id, start_time=start_ms, tags=tags, run_name=model.name)
        run_id = str(run.info.run_id)
        model_id = None if model.kind == "base" else self.log_model(model, run_id)
        self.log_content(run_id, model, end_ms, model_id)
        client.set_terminated(run_id, "FINISHED", end_time=end_ms)
        client.set_tag(run_id, COMPLETE, digest)
        return run_id

    def log_model(self, model: ModelRecord, run_id: str) -> str:
        """A logged model whose files stay where they are (MLflow: external)."""
        from mlflow.entities import LoggedModelOutput

        tags = {**_tags(model.tags), ARTIFACT: model.artifact, EXTERNAL: "true"}
        logged = self.client.create_logged_model(
            self.experiment_id,
            name=names.model_name(model.name),
            source_run_id=run_id,
            tags=tags,
            params=_params(model.params),
            model_type=model.kind,
        )
        model_id = str(logged.model_id)
        self.client.finalize_logged_model(model_id, "READY")
        self.client.log_outputs(run_id, [LoggedModelOutput(model_id=model_id, step=0)])
        return model_id

    def logged_models(self, runs: Mapping[str, str]) -> dict[str, Any]:
        """Logged models of the given runs by artifact id, with their tags."""
        wanted = set(runs.values())
        found: dict[str, Any] = {}
        token = None
        while True:
            page = self.client.search_logged_models([self.experiment_id], max_results=100, page_token=token)
            found.update({m.tags[ARTIFACT]: m for m in page if m.source_run_id in wanted})
            token = page.token
            if not token:
                return found

    def recommend(self, best: str, path: Path | None, logged: Mapping[str, Any]) -> None:
        """Upload the files of the recommended model, and mark it alone as recommended."""
        if best not in logged or path is None:
            raise ValueError(f"the recommended model {best} is not logged, or its files are missing")
        for artifact, model in logged.items():
            if artifact != best and model.tags.get(RECOMMENDED) == "true":
                self.client.set_logged_model_tags(model.model_id, {RECOMMENDED: "no longer"})
        model = logged[best]
        if model.tags.get(FILES) != "uploaded":
            self.client.log_model_artifacts(model.model_id, str(path))
            self.client.delete_logged_model_tag(model.model_id, EXTERNAL)
            self.client.set_logged_model_tags(model.model_id, {FILES: "uploaded"})
        if model.tags.get(RECOMMENDED) != "true":
            self.client.set_logged_model_tags(model.model_id, {RECOMMENDED: "true"})

    def delete(self, run_id: str) -> None:
        """Move a run that was cut off or is out of date to MLflow's trash, its logged models with it."""
        for model in self.client.search_logged_models(
            [self.experiment_id], filter_string=f"source_run_id = '{run_id}'"
        ):
            self.client.delete_logged_model(model.model_id)
        self.client.delete_run(run_id)

    # ---- calls in MLflow's sizes

    def search_runs(self, filter_string: str) -> list[Any]:
        found: list[Any] = []
        token = None
        while True:
            page = self.client.search_runs(
                [self.experiment_id], filter_string=filter_string, max_results=1000, page_token=token
            )
            found += page
            token = page.token
            if not token:
                return found

    def log_content(
        self,
        run_id: str,
        record: ModelRecord | StudyRecord,
        time_ms: int,
        model_id: str | None = None,
        known_params: Mapping[str, str] = MappingProxyType({}),
    ) -> None:
        """Tables; metrics, each with its table and, if given, the logged model; parameters."""
        from mlflow.entities import Metric, Param

        if record.tables:
            self.client.log_inputs(run_id, datasets=[_dataset_input(table) for table in record.tables])
        digests = {table.name: table.short_digest for table in record.tables}
        metrics = [
            Metric(
                row.key,
                row.value,
                time_ms,
                row.step,
                model_id=None if row.curve else model_id,
                dataset_name=row.table if row.table in digests else None,
                dataset_digest=digests.get(row.table or ""),
            )
            for row in record.metrics
        ]
        params = [Param(k, v) for k, v in _params(record.params).items() if k not in known_params]
        self.client.log_batch(run_id, metrics=metrics, params=params)


def _set_environment() -> None:
    """What MLflow reads at import and at each request; what the user has set stands."""
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    # A server that dies in mid-study is given up after half a minute instead of four.
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "3")


def _client(uri: str) -> MlflowClient:
    import mlflow

    for noisy in ("alembic", "mlflow.store.db.utils"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
    return mlflow.MlflowClient(tracking_uri=uri, registry_uri=uri)


def _dataset_input(table: TrackedTable) -> Any:
    from mlflow.entities import Dataset, DatasetInput, InputTag

    columns = [{"name": name, "type": kind, "required": True} for name, kind in table.columns.items()]
    dataset = Dataset(
        name=table.name,
        digest=table.short_digest,
        source_type="local",
        source=json.dumps({"uri": table.path}),
        schema=json.dumps({"mlflow_colspec": columns}) if columns else None,
        profile=json.dumps({"num_rows": table.rows}),
    )
    return DatasetInput(dataset, tags=[InputTag("mlflow.data.context", table.context)])


def _params(params: Mapping[str, str]) -> dict[str, str]:
    return {names.key(k): names.shortened(v, names.PARAM_LENGTH) for k, v in params.items()}


def _tags(tags: Mapping[str, str]) -> dict[str, str]:
    return {names.key(k): names.shortened(v, names.TAG_LENGTH) for k, v in tags.items()}


def _now_ms() -> int:
    return int(time.time() * 1000)
