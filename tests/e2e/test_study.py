"""A whole study from the command line: its report, its models in MLflow, its second run, and no secret in its files.

`test_jobs.py` looks for secrets after a submitted job, `tests/ray/test_tracking_server.py` on an MLflow server.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.e2e.conftest import Study, files, tail
from tests.support.planted import SECRETS, holders

pytestmark = pytest.mark.slow

RESULTS = {
    "facts": ["*.parquet", "topics.json"],
    "model": ["*.safetensors", "tokenizer.json"],
    "mastery": ["mastery.parquet"],
    "training-set": ["*.parquet"],
    "tuned": ["*.safetensors"],
    "change": ["change.json"],
    "controls": ["controls.json"],
    "updates": ["updates.parquet"],
    "evaluation": ["answers.parquet", "divergence.parquet"],
    "results": ["groups.parquet", "comparisons.parquet", "choice.parquet"],
    "best": ["*.safetensors"],
}


def payloads(study: Study) -> dict[str, bytes]:
    return {k: v for stage, names in RESULTS.items() for k, v in files(study.store, stage, names).items()}


def test_the_study_ends_with_a_report_a_recommendation_and_a_loadable_model(finished: Study) -> None:
    (report,) = finished.store.glob("report/*/report.html")
    page = report.read_text()
    assert "<svg" in page and "http://" not in page.replace("http://www.w3.org", "")
    (choice,) = finished.store.glob("best/*/choice.json")
    chosen = json.loads(choice.read_text())
    (folder,) = choice.parent.glob("restored-*")
    assert folder.name == f"restored-{chosen['percent']:g}"
    code = (
        "from transformers import AutoModelForCausalLM, AutoTokenizer\n"
        f"m = AutoModelForCausalLM.from_pretrained({str(folder)!r})\n"
        f"t = AutoTokenizer.from_pretrained({str(folder)!r})\n"
        "print(m.generate(**t('<|question|> x', return_tensors='pt'), max_new_tokens=2).shape)"
    )
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert loaded.returncode == 0, loaded.stderr[-2000:]


def test_every_model_of_the_ladders_was_evaluated(finished: Study) -> None:
    cells, percents = 4, 3
    assert len(list(finished.store.glob("evaluation/*/record.json"))) == cells * percents + 1


def test_mlflow_holds_the_study_and_its_models(finished: Study) -> None:
    code = (
        "import mlflow\n"
        f"c = mlflow.MlflowClient('sqlite:///{finished.store}/mlflow.db')\n"
        "e = c.search_experiments(filter_string=\"name = 'sftlab'\")[0]\n"
        "print(len(c.search_runs([e.experiment_id], max_results=100)),"
        " len(c.search_logged_models([e.experiment_id], max_results=100)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == [
        "6",
        "12",
    ]  # parent, base and 4 cells; 12 models are logged, the base is none


def test_a_second_run_is_all_hits_and_changes_nothing(finished: Study) -> None:
    def stamps() -> dict[Path, int]:
        return {p: p.stat().st_mtime_ns for p in finished.store.glob("*/*/**/*") if p.is_file()}

    before = stamps()
    done = finished.call("run", "--set", "runtime.track=false")
    assert done.returncode == 0 and "recommended" in done.stdout, tail(done)
    assert stamps() == before
    shown = json.loads(finished.call("plan", "--json").stdout)
    assert {step["state"] for step in shown["steps"]} == {"HIT"}
    assert set(shown["cost"].values()) == {0}


def test_wrong_input_exits_with_2_and_says_what_to_do(tmp_path: Path) -> None:
    done = Study(tmp_path / "store").call("run", "--set", "sft.lerning_rate=1")
    assert done.returncode == 2 and "did you mean 'learning_rate'" in done.stderr
    done = Study(tmp_path / "store").call(
        "run", "--set", "runtime.engine.gpus_per_engine=1", "--until", "mastery"
    )
    assert not any((tmp_path / "store").glob("*/*/record.json"))  # told before the first stage
    assert done.returncode == 2 and "GPU" in done.stderr, tail(done)


def test_no_secret_stands_in_the_store_in_mlflow_or_in_any_log(finished: Study) -> None:
    place = finished.store.parent
    assert (finished.store / "mlflow.db").is_file() and (place / "run.log").stat().st_size
    assert finished.ray is not None and any(finished.ray.rglob("logs/*")), "Ray's logs are looked through too"
    assert holders(place, SECRETS) == []
    assert holders(finished.ray, SECRETS) == []
