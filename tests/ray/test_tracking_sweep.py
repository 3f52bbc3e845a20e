"""What a sweep looks like in a real MLflow with a sqlite file; no Ray."""

from __future__ import annotations

import dataclasses
import os
import shutil
from pathlib import Path
from typing import Any

import pytest

from sftlab.errors import UserError
from sftlab.studies.knowledge.results.tables import Results
from sftlab.studies.knowledge.tracking.card import BaseModel, licence_of, model_card
from sftlab.studies.knowledge.tracking.log import log_results
from sftlab.tracking import Tracked, TrackedTable, TrackingSettings, artifact_of, best_restored_model
from tests.support.tracked_study import everything, make_database, make_model
from tests.support.tracked_sweep import PERCENTS, QUESTIONS, SPLITS, MadeUpSweep, base_of, models_of

os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
TABLES = [
    TrackedTable(split, f"{n}" * 64, f"{split}.parquet", 5 * QUESTIONS) for n, split in enumerate(SPLITS)
]
NAME = "made-up-sweep"


@pytest.fixture(scope="module")
def empty_database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Made once and copied for the tests."""
    return make_database(tmp_path_factory.mktemp("empty"))


@pytest.fixture
def store(tmp_path: Path, empty_database: Path) -> Path:
    """Root of a store with MLflow's database in its first state, and a model folder in it."""
    shutil.copy(empty_database, tmp_path / "mlflow.db")
    make_model(tmp_path / "model")
    return tmp_path


@pytest.fixture(scope="module")
def results() -> Results:
    return MadeUpSweep().results()


def logged(results: Results, store: Path, card: str = "# Card\n", **options: Any) -> Tracked:
    models = models_of(results, store / "model")
    return log_results(
        results, base_of(), models, "key", TrackingSettings(), store, tables=TABLES, card=card, **options
    )


def client_of(sweep: Tracked) -> Any:
    from mlflow import MlflowClient

    return MlflowClient(tracking_uri=sweep.address, registry_uri=sweep.address)


def all_models(sweep: Tracked) -> list[Any]:
    return list(client_of(sweep).search_logged_models([sweep.experiment_id], max_results=100))


def run_of(sweep: Tracked, name: str) -> Any:
    """The one run of that name, star or none."""
    runs = client_of(sweep).search_runs([sweep.experiment_id], max_results=1000)
    (run,) = [run for run in runs if run.info.run_name.removeprefix("★ ") == name]
    return run


def test_a_sweep_is_a_parent_run_with_a_child_a_trial(store: Path, results: Results) -> None:
    report = store / "report.html"
    report.write_text("<h1>sweep</h1>")
    heard: list[tuple[int, int]] = []
    sweep = logged(results, store, report=report, progress=lambda done, total: heard.append((done, total)))
    trials = 3 * 2 * 2
    assert heard[0] == (0, trials + 1) and heard[-1] == (trials + 1, trials + 1)
    assert len(sweep.runs) == len(sweep.written) == trials + 1
    client = client_of(sweep)

    parent = client.get_run(sweep.run_id)
    assert (parent.info.run_name, parent.info.status) == (NAME, "FINISHED")
    assert parent.data.metrics["sweep/trials"] == trials and parent.data.metrics["sweep/models"] == 36
    choice = next(row for row in results.choice if row.scope == "recommended")
    assert parent.data.metrics["recommended/test"] == pytest.approx(choice.test, rel=1e-5)
    note = parent.data.tags["mlflow.note.content"]
    assert "`restore`, 10 %, on 100 facts of bucket 4" in note and "| in domain | " in note
    assert f"(#/experiments/{sweep.experiment_id}/runs?" in note and f"(#/models/{NAME})" in note
    assert [file.path for file in client.list_artifacts(sweep.run_id)] == ["report.html"]
    command, page = sweep.how_to_look.splitlines()
    assert (
        command == f"MLFLOW_DISABLE_TELEMETRY=true mlflow ui --backend-store-uri {sweep.address}"
        and len(page) < 110
    )
    assert page.endswith(f"/#/experiments/{sweep.experiment_id}/runs/{sweep.run_id}")
    assert "compareRunsMode=CHART" in note and "compareRunsMode=CHART" in sweep.page

    trial = run_of(sweep, "b4-n100-s0 · restore")
    assert trial.info.run_name.startswith("★ ") and trial.data.tags["mlflow.parentRunId"] == sweep.run_id
    params = {"strategy": "restore", "train_bucket": "4", "size": "100", "set_seed": "0", "sweep": NAME}
    params |= {"sft.learning_rate": "0.001", "sft.batch_size": "8", "restore.region": "layers"}
    assert params.items() <= trial.data.params.items() and "percent" not in trial.data.params
    other = run_of(sweep, "b0-n100-s1 · l2-sp strength=0.1")
    assert (other.data.params["strategy"], other.data.params["strategy.strength"]) == ("l2-sp", "0.1")

    ladder = client.get_metric_history(trial.info.run_id, "accuracy/test")
    means = {
        row.percent: row.accuracy
        for row in results.variants[0].accuracy
        if (row.cell, row.split, row.bucket) == ("bucket4-n100-s0", "test", None)
    }
    found = {metric.step: metric.value for metric in ladder}
    assert found == pytest.approx({0: means[0.0], 3: means[2.5], 10: means[10.0], 40: means[40.0]}, rel=1e-5)
    (own,) = [
        row
        for row in results.choice
        if (row.scope, row.variant, row.cell) == ("cell", "restore", "bucket4-n100-s0")
    ]
    assert own.test is not None and own.test_tuned is not None
    wanted = {"chosen/percent": own.percent, "chosen/test": own.test, "tuned/test": own.test_tuned}
    wanted |= {"chosen/gain_test": own.test - own.test_tuned, "train/final_loss": 0.5 + 3.5 / 12}
    wanted |= {"accuracy/train_set": trial.data.metrics["train_set_by_bucket/bucket_4"]}
    assert {key: trial.data.metrics[key] for key in wanted} == pytest.approx(wanted, rel=1e-5)
    sections = {key.split("/")[0] for key in trial.data.metrics}
    assert sections == {
        "accuracy",
        "answers_gained",
        "answers_lost",
        "chosen",
        "tuned",
        "kl",
        "train",
        "weights",
    } | {f"{split}_by_bucket" for split in (*SPLITS, "train_set")}
    inputs = {d.dataset.name: d.tags[0].value for d in trial.inputs.dataset_inputs}
    assert inputs == dict.fromkeys(SPLITS, "evaluation") | {"bucket4-n100-s0": "training"}
    base = run_of(sweep, "base · pocket Llama")
    assert base.data.metrics["mastery_test/bucket_4"] == 50.0 and not base.outputs.model_outputs


def test_every_model_of_a_ladder_is_logged_with_what_it_is_and_was_measured_on(
    store: Path, results: Results
) -> None:
    sweep = logged(results, store)
    models = {model.name: model for model in all_models(sweep)}
    assert len(models) == 2 * 2 * (2 * len(PERCENTS) + 1)
    trial = run_of(sweep, "b4-n100-s1 · wise-ft")
    names = {
        0: "b4-n100-s1 · wise-ft tuned",
        3: "b4-n100-s1 · wise-ft 2_5 percent",
        10: "b4-n100-s1 · wise-ft 10 percent",
        40: "b4-n100-s1 · wise-ft 40 percent",
    }
    steps = {output.step: output.model_id for output in trial.outputs.model_outputs}
    assert steps == {step: models[name].model_id for step, name in names.items()}
    model = models[names[3]]
    made = next(
        m for m in models_of(results, None)["wise-ft"] if (m.cell, m.percent) == ("bucket4-n100-s1", 2.5)
    )
    assert model.tags["sftlab.artifact"] == made.id and model.params["artifact"] == made.id[:12]
    assert (model.status, model.model_type, model.source_run_id) == ("READY", "restored", trial.info.run_id)
    wanted = {"strategy": "wise-ft", "train_bucket": "4", "size": "100", "percent": "2.5", "set_seed": "1"}
    assert wanted.items() <= model.params.items()
    measured = {metric.key: metric.dataset_name for metric in model.metrics}
    assert len(measured) == 4 * (6 + 2) + 1 and measured["kl/first_token"] == "test"
    assert all(measured[f"{split}_by_bucket/bucket_3"] == split for split in SPLITS)
    assert all(measured[f"accuracy/{split}"] == split for split in SPLITS)


def test_logging_again_changes_nothing(store: Path, results: Results) -> None:
    first = logged(results, store)
    before = everything(first), registered(first)
    again = logged(results, store)
    assert again.written == () and (again.run_id, again.runs) == (first.run_id, first.runs)
    assert (everything(again), registered(again)) == before


def registered(sweep: Tracked) -> list[tuple[Any, ...]]:
    """Versions of the registered model and what they stand for."""
    client = client_of(sweep)
    aliases = client.get_registered_model(NAME).aliases
    return [
        (str(v.version), dict(v.tags), [a for a, at in aliases.items() if str(at) == str(v.version)])
        for v in sorted(client.search_model_versions(f"name = '{NAME}'"), key=lambda v: int(v.version))
    ]


def test_a_grown_sweep_adds_its_new_trials_and_moves_the_champion(store: Path) -> None:
    small = MadeUpSweep(buckets=(0,), strategies=("restore",)).results()
    grown = MadeUpSweep(buckets=(0, 4), strategies=("restore",)).results()
    first = logged(small, store)
    before = everything(first)["runs"]
    second = logged(grown, store)
    assert second.run_id == first.run_id and len(second.written) == 2
    assert all("bucket4" in key for key in second.written)
    after = everything(second)["runs"]
    assert isinstance(before, dict) and isinstance(after, dict)
    old = first.runs.keys() - {"restore/bucket0-n100-s0/" + models_of(small, None)["restore"][0].id}
    assert all(after[first.runs[key]] == before[first.runs[key]] for key in old)
    assert run_of(second, "b0-n100-s0 · restore").info.run_name == "b0-n100-s0 · restore"
    assert run_of(second, "b4-n100-s0 · restore").info.run_name == "★ b4-n100-s0 · restore"
    versions = registered(second)
    assert [version[2] for version in versions] == [[], ["champion"]]
    marks = {m.name: m.tags.get("sftlab.recommended") for m in all_models(second)}
    assert marks["b0-n100-s0 · restore 10 percent"] == "no longer"
    assert [name for name, mark in marks.items() if mark == "true"] == ["b4-n100-s0 · restore 10 percent"]


def test_a_longer_ladder_replaces_its_trial(store: Path) -> None:
    short = MadeUpSweep(buckets=(4,), seeds=(0,), strategies=("restore",), percents=(0.0, 10.0)).results()
    long = MadeUpSweep(buckets=(4,), seeds=(0,), strategies=("restore",)).results()
    first, second = logged(short, store), logged(long, store)
    assert len(second.written) == 1 and len(second.runs) == len(first.runs) == 2
    assert len(all_models(second)) == 4
    assert [version[2] for version in registered(second)] == [[], ["champion"]]


class Killed(BaseException):
    """Stands for a kill: nothing may catch it."""


@pytest.mark.parametrize(
    ("after_call", "times"),
    [
        ("create_run", 3),
        ("create_logged_model", 6),
        ("log_outputs", 2),
        ("log_batch", 2),
        ("set_terminated", 3),
        ("update_run", 1),
        ("log_model_artifacts", 1),
        ("log_model_artifact", 1),
        ("delete_logged_model_tag", 1),
        ("create_registered_model", 1),
        ("create_model_version", 1),
        ("set_registered_model_alias", 1),
    ],
)
def test_a_sweep_killed_in_the_middle_is_completed_without_doubles(
    after_call: str, times: int, store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mlflow import MlflowClient

    results = MadeUpSweep(buckets=(4,), strategies=("restore",)).results()
    real = getattr(MlflowClient, after_call)
    calls = 0

    def killed_after(*args: object, **options: object) -> object:
        nonlocal calls
        answer = real(*args, **options)
        calls += 1
        if calls == times:
            raise Killed
        return answer

    with monkeypatch.context() as patch:
        patch.setattr(MlflowClient, after_call, killed_after)
        with pytest.raises(Killed):
            logged(results, store)
    sweep = logged(results, store)
    client = client_of(sweep)
    active = client.search_runs([sweep.experiment_id])
    assert {run.info.run_id for run in active} == {sweep.run_id, *sweep.runs.values()} and len(active) == 4
    assert all(run.info.status == "FINISHED" and "sftlab.complete" in run.data.tags for run in active)
    models = all_models(sweep)
    assert len(models) == 2 * len(PERCENTS) and all(model.status == "READY" for model in models)
    assert len({model.tags["sftlab.artifact"] for model in models}) == len(models)
    assert [version[2] for version in registered(sweep)] == [["champion"]]
    (best,) = [model for model in models if model.tags.get("sftlab.recommended") == "true"]
    assert best.tags["sftlab.files"] == "uploaded" and "mlflow.model.isExternal" not in best.tags
    assert sum(run.info.run_name.startswith("★ ") for run in active) == 1
    before = everything(sweep), registered(sweep)
    assert logged(results, store).written == ()
    assert (everything(sweep), registered(sweep)) == before


def test_the_champion_comes_with_its_files_and_its_card(
    store: Path, results: Results, tmp_path: Path
) -> None:
    import mlflow

    best = results.recommended()
    assert best is not None and best.model == ("restore", "bucket4-n100-s0", 10.0)
    model = next(m for m in models_of(results, None)["restore"] if (m.cell, m.percent) == best.model[1:])
    base = BaseModel("some/model", "b" * 64, "It was brought by the user.", "llama3", ("LICENSE",))
    card = model_card(results, best, model, base)
    sweep = logged(results, store, card)
    assert sweep.champion == f"models:/{NAME}@champion"
    mlflow.set_tracking_uri(sweep.address)
    mlflow.set_registry_uri(sweep.address)
    folder = Path(mlflow.artifacts.download_artifacts(sweep.champion, dst_path=str(tmp_path / "got")))
    assert (folder / "model.safetensors").read_bytes() == bytes(range(64))
    assert (folder / "README.md").read_text() == card
    assert artifact_of(sweep.champion, TrackingSettings(), store) == model.id
    assert artifact_of(f"models:/{NAME}/1", TrackingSettings(), store) == model.id

    again = logged(results, store, card + "\nMore is known now.\n")
    assert again.written == () and len(registered(again)) == 1
    mlflow.artifacts.download_artifacts(sweep.champion, dst_path=str(tmp_path / "new"))
    assert "More is known now." in (tmp_path / "new" / "README.md").read_text()


def test_a_card_says_settings_numbers_and_licence(results: Results, tmp_path: Path) -> None:
    import yaml

    best = results.recommended()
    assert best is not None
    model = next(m for m in models_of(results, None)["restore"] if m.percent == 10.0)
    (tmp_path / "README.md").write_text("---\nlicense: llama3\n---\n# A model\n")
    (tmp_path / "LICENSE").write_text("terms")
    licence, files = licence_of(tmp_path)
    assert (licence, files) == ("llama3", ("LICENSE",))
    card = model_card(results, best, model, BaseModel("some/model", "b" * 64, "Brought.", licence, files))
    head = yaml.safe_load(card.split("---\n")[1])
    assert head["base_model"] == "some/model" and head["license"] == "llama3"
    group = next(
        row
        for row in results.groups
        if (row.variant, row.train_bucket, row.percent, row.split, row.bucket)
        == ("restore", "4", 10.0, "test", None)
    )
    assert f"| in domain | {100 * group.mean:.1f} | {100 * group.low:.1f} to {100 * group.high:.1f} |" in card
    for words in (
        "| sft.learning_rate | 0.001 |",
        f"`{model.id}`",
        "seed 0",
        "**llama3**",
        "LICENSE",
        "vllm",
    ):
        assert words in card
    unknown = model_card(results, best, model, BaseModel("m", "b" * 64, "Brought."))
    assert "No licence is named" in unknown and "license: unknown" in unknown
    for text in ("no head", "---\n[broken\n---\n", "---\n- list\n---\n"):
        (tmp_path / "README.md").write_text(text)
        assert licence_of(tmp_path)[0] is None


def test_the_best_restored_model_is_found_by_its_metrics(store: Path, results: Results) -> None:
    logged(results, store)
    models = [m for m in all_models(logged(results, store)) if m.params["kind"] == "restored"]
    scores = {m.name: {metric.key: metric.value for metric in m.metrics} for m in models}
    for least in (0.0, 0.4, 0.77):
        fit = [s["accuracy/dev_ood"] for s in scores.values() if s["accuracy/dev"] >= least]
        found = best_restored_model(TrackingSettings(), store, least)
        assert found is not None and found.metrics["accuracy/dev_ood"] == max(fit)
        assert found.metrics["accuracy/dev"] >= least and found.params["kind"] == "restored"
    on_test = best_restored_model(TrackingSettings(), store, 0.4, NAME, "test")
    assert on_test is not None
    assert on_test.metrics["accuracy/test_ood"] == max(
        s["accuracy/test_ood"] for s in scores.values() if s["accuracy/test"] >= 0.4
    )
    assert artifact_of(on_test.uri, TrackingSettings(), store) == on_test.artifact
    assert best_restored_model(TrackingSettings(), store, 1.0) is None
    assert best_restored_model(TrackingSettings(), store, 0.0, "another-sweep") is None
    with pytest.raises(UserError, match="is no name of a sweep"):
        best_restored_model(TrackingSettings(), store, 0.0, "x' OR params.sweep != 'x")
    with pytest.raises(UserError, match="a share from 0 to 1"):
        best_restored_model(TrackingSettings(), store, 40.0)
    for unknown in ("models:/nothing@champion", "m-0123", f"models:/{NAME}/77"):
        with pytest.raises(UserError, match="MLflow has no such model"):
            artifact_of(unknown, TrackingSettings(), store)


def test_a_recommended_model_without_files_is_refused(store: Path, results: Results) -> None:
    with pytest.raises(ValueError, match="has no path"):
        log_results(results, base_of(), models_of(results, None), "key", TrackingSettings(), store)


def test_a_sweep_that_recommends_nothing_registers_nothing(store: Path, results: Results) -> None:
    none = dataclasses.replace(results, choice=[])
    sweep = logged(none, store)
    assert sweep.champion is None and not client_of(sweep).search_registered_models()
