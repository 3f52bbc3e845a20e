"""The MLflow shell: writes the records of a study; finds what is written already.

Every run carries its record's digest in the tag `sftlab.complete`, set last: its presence is the commit. A
run without it was cut off, and one with another digest is out of date; both are deleted and written again.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sftlab.shell import command
from sftlab.tracking import names
from sftlab.tracking.connection import (
    ARTIFACT,
    COMPLETE,
    EXTERNAL,
    FILES,
    PARENT,
    RECOMMENDED,
    Connection,
    accepted_params,
    accepted_tags,
    now_ms,
    refusals,
)
from sftlab.tracking.records import ModelRecord, StudyRecord
from sftlab.tracking.settings import TrackingSettings

LOCAL = "http://127.0.0.1:5000"  # where `mlflow ui` serves


@dataclass(frozen=True)
class TrackedRuns:
    """Where a parent run and its children are in MLflow."""

    address: str
    experiment_id: str
    run_id: str

    @property
    def page(self) -> str:
        """The page of the runs, below the server's address."""
        return f"/#/experiments/{self.experiment_id}/runs?workflowType=machine_learning"

    @property
    def front_page(self) -> str:
        """The page to begin with."""
        return self.page

    @property
    def how_to_look(self) -> str:
        """Address of the page to begin with; for a file the command that serves it, then the address."""
        if self.address.startswith("sqlite:"):
            words = ("mlflow", "ui", "--backend-store-uri", self.address)
            served = command(*words, environment={"MLFLOW_DISABLE_TELEMETRY": "true"})
            return f"{served}\n  then open {LOCAL}{self.front_page}"
        return self.address + self.front_page


@dataclass(frozen=True)
class TrackedStudy(TrackedRuns):
    """Where a study is in MLflow; run and model ids by the artifact id of the model."""

    runs: Mapping[str, str]
    models: Mapping[str, str]
    written: Sequence[str] = field(default=())


def write_study(
    study: StudyRecord,
    models: Sequence[ModelRecord],
    settings: TrackingSettings,
    store: Path,
    progress: Callable[[int, int], None] | None = None,
) -> TrackedStudy:
    """Log what MLflow does not hold yet; logging the same records again writes nothing.

    `store` is the folder below which the sqlite file is where the settings name no address. `progress`
    hears the number of models that are in MLflow, and of all. Raises UserError where MLflow cannot be
    reached or refuses.
    """
    with refusals(settings, store):
        writer = _Writer.connect(settings, store)
        times = [model.end_ms for model in models if model.end_ms is not None] or [now_ms()]
        run_id, parent_complete = writer.open_parent(study, min(times))
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
            writer.close_parent(study, run_id, max(times))
        if progress:
            progress(len(models), len(models))
    ids = {artifact: str(model.model_id) for artifact, model in logged.items()}
    return TrackedStudy(settings.uri(store), writer.experiment_id, run_id, runs, ids, tuple(written))


@dataclass
class _Writer(Connection):
    # ---- the models

    def keep_or_write(
        self, model: ModelRecord, study: str, parent: str, known: Mapping[str, Sequence[Any]]
    ) -> tuple[str, bool]:
        """Id of the model's run, and whether it had to be written."""
        digest = model.digest()
        kept = self.keep(known.get(model.artifact, ()), digest, 0 if model.kind == "base" else 1)
        return (kept, False) if kept else (self.write(model, study, parent, digest), True)

    def write(self, model: ModelRecord, study: str, parent: str, digest: str) -> str:
        client = self.client
        end_ms = model.end_ms or now_ms()
        start_ms = end_ms - round(1000 * model.seconds)
        tags = {
            **accepted_tags(model.tags),
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

        tags = {**accepted_tags(model.tags), ARTIFACT: model.artifact, EXTERNAL: "true"}
        logged = self.client.create_logged_model(
            self.experiment_id,
            name=names.model_name(model.name),
            source_run_id=run_id,
            tags=tags,
            params=accepted_params(model.params),
            model_type=model.kind,
        )
        model_id = str(logged.model_id)
        self.client.finalize_logged_model(model_id, "READY")
        self.client.log_outputs(run_id, [LoggedModelOutput(model_id=model_id, step=0)])
        return model_id

    def logged_models(self, runs: Mapping[str, str]) -> dict[str, Any]:
        """Logged models of the given runs by artifact id, with their tags."""
        wanted = set(runs.values())
        return {m.tags[ARTIFACT]: m for m in self.search_models() if m.source_run_id in wanted}

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
