"""The MLflow shell: writes trials with their models below a parent run, and registers the recommended model.

Every run carries its record's digest in the tag `sftlab.complete`, set last: its presence is
the commit. A run without it was cut off, and one with another digest is out of date; both are deleted, with
their models, and written again.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from urllib.parse import quote, urlencode

from sftlab.shell import command
from sftlab.store.mirror import display_path
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
from sftlab.tracking.records import ParentRecord, TrialRecord
from sftlab.tracking.settings import TrackingSettings

LOCAL = "http://127.0.0.1:5000"  # where `mlflow ui` serves
TRIAL = "sftlab.trial"
CARD = "sftlab.card"
MODEL = "sftlab.logged_model"
NOTE = "mlflow.note.content"  # shown as description
VERSIONS = "mlflow.modelVersions"  # what MLflow's pages show a logged model as registered by
CARD_FILE = "README.md"
ALIAS = "champion"
STAR = "★ "


@dataclass(frozen=True)
class Champion:
    """A model to register under `name`: `artifact` of the ladder of the trial `key`.

    folder: what is uploaded. card: text of its README.md, uploaded with it. description: of the version.
    """

    name: str
    key: str
    artifact: str
    folder: Path
    card: str
    description: str


@dataclass(frozen=True)
class Tracked:
    """Where a study, a sweep or a survey is in MLflow: run ids by the key of the trial, and the registered models.

    champions: addresses that load them, such as `models:/NAME@champion`; empty where nothing is recommended.
    """

    address: str
    experiment_id: str
    run_id: str
    runs: Mapping[str, str] = field(default_factory=dict)
    written: Sequence[str] = ()
    champions: Sequence[str] = ()

    @property
    def champion(self) -> str | None:
        """The first of the champions."""
        return self.champions[0] if self.champions else None

    @property
    def page(self) -> str:
        """The trials with their charts, the best on dev first, below the server's address: a long address."""
        return trials_page(self.experiment_id, self.run_id)

    @property
    def front_page(self) -> str:
        """The parent run, whose description begins with a link to `page`."""
        return f"/#/experiments/{self.experiment_id}/runs/{self.run_id}"

    @property
    def how_to_look(self) -> str:
        """Address of the page to begin with; for a file the command that serves it, then the address."""
        if self.address.startswith("sqlite:"):
            words = ("mlflow", "ui", "--backend-store-uri", self.address)
            served = command(*words, environment={"MLFLOW_DISABLE_TELEMETRY": "true"})
            return f"{served}\n  then open {LOCAL}{self.front_page}"
        return self.address + self.front_page


def trials_page(experiment_id: str, run_id: str) -> str:
    """MLflow's page that compares the trials of a parent run, below the server's address."""
    query = {
        "workflowType": "machine_learning",
        "searchFilter": f"tags.{PARENT} = '{run_id}'",
        "orderByKey": "metrics.`chosen/dev`",
        "orderByAsc": "false",
        "compareRunsMode": "CHART",
    }
    return f"/#/experiments/{experiment_id}/runs?{urlencode(query, quote_via=quote)}"


def write_results(
    parent: ParentRecord,
    trials: Sequence[TrialRecord],
    champions: Sequence[Champion],
    settings: TrackingSettings,
    store: Path,
    progress: Callable[[int, int], None] | None = None,
) -> Tracked:
    """Log what MLflow does not hold yet; logging the same records again writes nothing.

    `progress` hears the number of trials that are in MLflow, and of all. Raises UserError where MLflow cannot
    be reached or refuses.
    """
    with refusals(settings, store):
        writer = _Writer.connect(settings, store)
        times = [trial.end_ms for trial in trials if trial.end_ms is not None] or [now_ms()]
        run_id, parent_complete = writer.open_parent(parent, min(times))
        known = writer.logged_runs(run_id, TRIAL)
        runs: dict[str, str] = {}
        written: list[str] = []
        for done, trial in enumerate(trials):
            if progress:
                progress(done, len(trials))
            runs[trial.key], is_new = writer.keep_or_write(trial, parent, run_id, known)
            written += [trial.key] if is_new else []
        writer.mark_stars({trial.key: trial.name for trial in trials}, runs, known, champions)
        if champions:
            writer.unmark_others(parent, runs, champions)
        for champion in champions:
            model = writer.upload(runs[champion.key], champion)
            writer.register(parent, model, runs[champion.key], champion)
        if written or not parent_complete:
            page = trials_page(writer.experiment_id, run_id).removeprefix("/")
            writer.close_parent(parent, run_id, max(times), f"[Compare the trials]({page})\n\n")
        if progress:
            progress(len(trials), len(trials))
    addresses = tuple(f"models:/{champion.name}@{ALIAS}" for champion in champions)
    return Tracked(settings.uri(store), writer.experiment_id, run_id, runs, tuple(written), addresses)


def write_trials(
    parent: ParentRecord, trials: Sequence[TrialRecord], settings: TrackingSettings, store: Path
) -> tuple[str, ...]:
    """Log trials of a sweep that still runs; returns the keys of those that MLflow did not hold yet.

    Of `parent` only kind, key and name count; its run is begun where there is none, and left open. Raises UserError
    where MLflow cannot be reached or refuses.
    """
    with refusals(settings, store):
        writer = _Writer.connect(settings, store)
        times = [trial.end_ms for trial in trials if trial.end_ms is not None] or [now_ms()]
        run_id, _ = writer.open_parent(parent, min(times))
        known = writer.logged_runs(run_id, TRIAL)
        return tuple(trial.key for trial in trials if writer.keep_or_write(trial, parent, run_id, known)[1])


@dataclass
class _Writer(Connection):
    def keep_or_write(
        self, trial: TrialRecord, parent: ParentRecord, run_id: str, known: Mapping[str, Sequence[Any]]
    ) -> tuple[str, bool]:
        """Id of the trial's run, and whether it had to be written."""
        mark = trial.digest()
        kept = self.keep(known.get(trial.key, ()), mark, len(trial.models))
        return (kept, False) if kept else (self.write(trial, parent, run_id, mark), True)

    def write(self, trial: TrialRecord, parent: ParentRecord, parent_run: str, mark: str) -> str:
        from mlflow.entities import LoggedModelOutput

        client = self.client
        end_ms = trial.end_ms or now_ms()
        tags = {
            **accepted_tags(trial.tags),
            PARENT: parent_run,
            TRIAL: trial.key,
            "sftlab.kind": trial.kind,
            "mlflow.source.name": "sftlab",
        }
        start_ms = end_ms - round(1000 * trial.seconds)
        run = client.create_run(self.experiment_id, start_time=start_ms, tags=tags, run_name=trial.name)
        run_id = str(run.info.run_id)
        models = self.log_models(trial, parent, run_id)
        if models:
            steps = {model.artifact: model.step for model in trial.models}
            outputs = [LoggedModelOutput(model_id, steps[artifact]) for artifact, model_id in models.items()]
            client.log_outputs(run_id, outputs)
        self.log_trial(run_id, trial, models, end_ms)
        client.set_terminated(run_id, "FINISHED", end_time=end_ms)
        client.set_tag(run_id, COMPLETE, mark)
        return run_id

    def log_models(self, trial: TrialRecord, parent: ParentRecord, run_id: str) -> dict[str, str]:
        """Logged models of a trial whose files stay where they are (MLflow: external); ids by artifact."""
        made = {}
        for model in trial.models:
            tags = {ARTIFACT: model.artifact, parent.tag: parent.key, EXTERNAL: "true"}
            tags |= {"sftlab.path": display_path(model.path)} if model.path else {}
            logged = self.client.create_logged_model(
                self.experiment_id,
                name=names.model_name(model.name),
                source_run_id=run_id,
                tags=accepted_tags(tags),
                params=accepted_params(model.params),
                model_type=model.kind,
            )
            made[model.artifact] = str(logged.model_id)
            self.client.finalize_logged_model(made[model.artifact], "READY")
        return made

    def log_trial(self, run_id: str, trial: TrialRecord, models: Mapping[str, str], time_ms: int) -> None:
        """Tables, parameters and all metrics of the trial and its models, in one batch or a few."""
        from mlflow.entities import Param

        metrics = self.metrics(trial.metrics, trial.tables, time_ms)
        for model in trial.models:
            metrics += self.metrics(
                model.metrics, trial.tables, time_ms, models[model.artifact], step=model.step
            )
        self.log_tables(run_id, trial.tables)
        params = [Param(k, v) for k, v in accepted_params(trial.params).items()]
        self.client.log_batch(run_id, metrics=metrics, params=params)

    # ---- the recommended models

    def mark_stars(
        self,
        wanted: Mapping[str, str],
        runs: Mapping[str, str],
        known: Mapping[str, Sequence[Any]],
        champions: Sequence[Champion],
    ) -> None:
        """Begin the names of the recommended models' runs, and of no others, with a star."""
        best = dict.fromkeys(champion.key for champion in champions)
        for key, found in known.items():
            for run in found:
                name = str(run.info.run_name)
                kept = str(run.info.run_id) == runs.get(key)
                if kept and key not in best and name.startswith(STAR):
                    self.rename(str(run.info.run_id), name.removeprefix(STAR))
        for key in best:
            name = STAR + wanted[key]
            if self.client.get_run(runs[key]).info.run_name != name:
                self.rename(runs[key], name)

    def rename(self, run_id: str, name: str) -> None:
        self.client.update_run(run_id, name=name)

    def unmark_others(
        self, parent: ParentRecord, runs: Mapping[str, str], champions: Sequence[Champion]
    ) -> None:
        """Models that were recommended before and no longer are lose their mark."""
        best = {(champion.artifact, runs[champion.key]) for champion in champions}
        mine = f"tags.`{parent.tag}` = '{parent.key}'"
        for other in self.search_models(f"{mine} AND tags.`{RECOMMENDED}` = 'true'"):
            if (other.tags[ARTIFACT], other.source_run_id) not in best:
                self.client.set_logged_model_tags(other.model_id, {RECOMMENDED: "no longer"})

    def upload(self, run_id: str, champion: Champion) -> Any:
        """The champion's logged model, with its files, marked as recommended."""
        client = self.client
        model = next(
            m
            for m in self.search_models(f"source_run_id = '{run_id}'")
            if m.tags[ARTIFACT] == champion.artifact
        )
        card = sha256(champion.card.encode()).hexdigest()
        if model.tags.get(FILES) != "uploaded":
            client.log_model_artifacts(model.model_id, str(champion.folder))
        if model.tags.get(CARD) != card:
            with TemporaryDirectory() as scratch:
                (Path(scratch) / CARD_FILE).write_text(champion.card, encoding="utf-8")
                client.log_model_artifact(model.model_id, str(Path(scratch) / CARD_FILE))
        if EXTERNAL in model.tags:
            client.delete_logged_model_tag(model.model_id, EXTERNAL)
        marks = {FILES: "uploaded", CARD: card, RECOMMENDED: "true", NOTE: champion.description}
        if marks.items() - model.tags.items():
            client.set_logged_model_tags(model.model_id, marks)
        return model

    def register(self, parent: ParentRecord, model: Any, run_id: str, champion: Champion) -> None:
        """A version of the registered model of the champion's name that is this model, under the alias."""
        client, description, name = self.client, champion.description, champion.name
        if not client.search_registered_models(f"name = '{name}'"):
            client.create_registered_model(
                name, {"sftlab.kind": parent.kind}, f"Recommended by the {parent.kind} {parent.name}."
            )
        versions = client.search_model_versions(f"name = '{name}'")
        version = next((v for v in versions if v.tags.get(MODEL) == model.model_id), None)
        if version is None:
            version = client.create_model_version(
                name,
                model.artifact_location,
                run_id,
                tags={ARTIFACT: champion.artifact, MODEL: model.model_id},
                description=description,
                await_creation_for=0,  # it is made of files that are uploaded already
                model_id=model.model_id,
            )
        elif version.description != description:
            client.update_model_version(name, version.version, description)
        aliases = client.get_registered_model(name).aliases
        if str(aliases.get(ALIAS)) != str(version.version):
            client.set_registered_model_alias(name, ALIAS, version.version)
        shown = json.dumps([{"name": name, "version": str(version.version)}])
        if model.tags.get(VERSIONS) != shown:
            client.set_logged_model_tags(model.model_id, {VERSIONS: shown})
