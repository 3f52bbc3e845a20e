"""What a survey looks like in a real MLflow with a sqlite file. No Ray."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path

import numpy as np
import pytest

from sftlab.studies.survey.champions import Scored
from sftlab.studies.survey.tracking.log import log_survey
from sftlab.studies.survey.tracking.records import KeptModel, TrackedRun, TrackedSurvey
from sftlab.tracking import Tracked, TrackingSettings
from tests.support.tracked_study import make_database, make_model

os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
LABELS = {"family": "f", "language": "en"}


@pytest.fixture
def store(tmp_path: Path) -> Path:
    make_database(tmp_path)
    return tmp_path


def survey_of(folder: Path, best: dict[str, str]) -> TrackedSurvey:
    """Two bases with a run of two kept epochs each; scores rise by a tenth an epoch, more for the first base."""
    runs, scored = [], []
    for base, step in (("a", 0.2), ("b", 0.1)):
        ids = [f"{base}-{epoch}" for epoch in (1, 2)]
        kept = [
            KeptModel(id, n, make_model(folder / id), np.array([0.1, 0.3])) for n, id in enumerate(ids, 1)
        ]
        labels = {"base": base, **LABELS}
        run = {**labels, "data": "sums", "group": None, "method": "full", "size": 40}
        runs += [
            TrackedRun(base, labels),
            TrackedRun(
                f"{base}-sums-n40-full",
                run,
                kept,
                sft={"epochs": 2, "lora": None},
                perplexity={"response": 7.5, "full": None, "bits_per_byte": 1.25},
                losses=[2.0, 1.0],
                rates=[0.1, 0.05],
                seconds=3.0,
                provenance={"time": "2026-01-02T03:04:05+00:00"},
            ),
        ]
        for epoch, name in enumerate([base, *ids]):
            value = 0.1 + step * epoch
            scored.append(Scored(base, name, "sums", value, 0.5, value, value))
    judged = {"dev": 1.5, "test": 1.0, "low": 0.5, "high": 1.5, "ties": 0, "questions": 30}
    champions = [{"base": base, "model": model, **judged} for base, model in best.items()]
    return TrackedSurvey("words", "key", runs, scored, champions, {"template": "paper"})


def log(survey: TrackedSurvey, store: Path) -> Tracked:
    return log_survey(survey, TrackingSettings(), store, "paper")


def test_survey_is_a_parent_run_with_a_child_a_run_and_epochs_as_steps(store: Path, tmp_path: Path) -> None:
    import mlflow
    from mlflow import MlflowClient

    survey = survey_of(tmp_path, {"a": "a-2", "b": "b-1"})
    found = log(survey, store)
    client = MlflowClient(tracking_uri=found.address, registry_uri=found.address)
    parent = client.get_run(found.run_id)
    assert (parent.info.run_name, parent.data.tags["sftlab.kind"]) == ("words", "survey")
    counts = {"survey/bases": 2, "survey/runs": 2, "survey/models": 4, "recommended_a/test": 1.0}
    assert counts.items() <= parent.data.metrics.items()

    run = client.get_run(found.runs["a-sums-n40-full/a-2"])
    assert run.info.run_name == "★ a-sums-n40-full"
    tags = {"base": "a", "family": "f", "language": "en", "data": "sums", "method": "full", "size": "40"}
    assert (tags | {"epoch": "2"}).items() <= run.data.tags.items()
    assert "group" not in run.data.tags

    def curve(key: str) -> dict[int, float]:
        return {m.step: m.value for m in client.get_metric_history(run.info.run_id, key)}

    assert curve("score/sums") == pytest.approx({1: 30, 2: 50})
    assert curve("form/sums") == pytest.approx({1: 50, 2: 50})
    assert curve("gain/sums") == pytest.approx({1: 20, 2: 40})
    # gains of the four tuned models: 0.2, 0.4, 0.1 and 0.2; their deviation is 0.10897
    spread = float(np.std([0.2, 0.4, 0.1, 0.2]))
    assert curve("gain_standardised/mean") == pytest.approx({1: 0.2 / spread, 2: 0.4 / spread}, rel=1e-5)
    # two layers, at 1/4 and 3/4 of the network
    assert curve("movement/position_0.5") == pytest.approx({1: 0.2, 2: 0.2})
    assert curve("movement/position_0.9") == pytest.approx({1: 0.3, 2: 0.3})
    assert curve("train/loss") == {1: 2.0, 2: 1.0}
    expected = {"perplexity/response": 7.5, "bits_per_byte": 1.25, "chosen/epoch": 2.0}
    assert expected.items() <= run.data.metrics.items() and "perplexity/full" not in run.data.metrics

    assert found.champions == ("models:/words-a@champion", "models:/words-b@champion")
    for address, model in zip(found.champions, ("a-2", "b-1"), strict=True):
        mlflow.set_tracking_uri(found.address)
        folder = Path(mlflow.artifacts.download_artifacts(address, dst_path=str(tmp_path / f"got-{model}")))
        assert (folder / "model.safetensors").read_bytes() == (
            tmp_path / model / "model.safetensors"
        ).read_bytes()
        assert model in (folder / "README.md").read_text(encoding="utf-8")


def test_logging_again_writes_nothing_and_another_choice_moves_the_alias_alone(
    store: Path, tmp_path: Path
) -> None:
    from mlflow import MlflowClient

    survey = survey_of(tmp_path, {"a": "a-2", "b": "b-1"})
    first, again = log(survey, store), log(survey, store)
    assert len(first.written) == 4 and again.written == () and again.runs == first.runs
    client = MlflowClient(tracking_uri=first.address, registry_uri=first.address)
    assert len(client.search_logged_models([first.experiment_id])) == 4

    other = dataclasses.replace(
        survey, champions=[{**survey.champions[0], "model": "a-1"}, survey.champions[1]]
    )
    assert log(other, store).written == ()
    version = client.get_model_version_by_alias("words-a", "champion")
    assert (version.version, version.tags["sftlab.artifact"]) in ((2, "a-1"), ("2", "a-1"))
    assert str(client.get_model_version_by_alias("words-b", "champion").version) == "1"
    marks = {
        m.tags["sftlab.artifact"]: m.tags.get("sftlab.recommended")
        for m in client.search_logged_models([first.experiment_id])
    }
    assert marks == {"a-1": "true", "a-2": "no longer", "b-1": "true", "b-2": None}


def test_run_with_another_epoch_is_replaced_and_the_others_are_kept(store: Path, tmp_path: Path) -> None:
    survey = survey_of(tmp_path, {})
    log(survey, store)
    fewer = [
        dataclasses.replace(run, models=run.models[1:]) if run.name.startswith("a-") else run
        for run in survey.runs
    ]
    assert log(dataclasses.replace(survey, runs=fewer), store).written == ("a-sums-n40-full/a-2",)
