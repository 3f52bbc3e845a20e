"""A whole study from the command line: its report, its second run, its kills, and the same by `ray job submit`."""

from __future__ import annotations

import json
import secrets
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from tests.e2e.conftest import ROOT, RUNTIME, STUDY, Study, environment, files, kill_when, tail

pytestmark = pytest.mark.slow

DASHBOARD = 8366  # below the range of ports that Ray gives its workers
RESULTS = {
    "facts": ["*.parquet", "topics.json"],
    "model": ["*.safetensors", "tokenizer.json"],
    "mastery": ["mastery.parquet"],
    "training-set": ["*.parquet"],
    "tuned": ["*.safetensors"],
    "change": ["change.json"],
    "controls": ["controls.json"],
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
    started = time.monotonic()
    done = finished.call("run", "--set", "runtime.track=false")
    assert done.returncode == 0 and "recommended" in done.stdout, tail(done)
    assert time.monotonic() - started < 30
    assert stamps() == before
    shown = json.loads(finished.call("plan", "--json").stdout)
    assert {step["state"] for step in shown["steps"]} == {"HIT"}
    assert set(shown["cost"].values()) == {0}


def test_a_run_killed_while_pretraining_scoring_tuning_and_answering_ends_in_the_same_bits(
    finished: Study, tmp_path: Path
) -> None:
    study = Study(tmp_path / "store")

    def some(pattern: str) -> Callable[[], bool]:
        return lambda: any(study.store.glob(pattern))

    moments = {
        "pre-training": some("model/*/model/pretraining.safetensors"),
        "scoring": some("mastery/*/work/blocks/*.parquet"),
        "fine-tuning": some("tuned/*/model/training.json"),
        "answering": some("evaluation/*/answers.parquet"),
    }
    often = [
        *("--set", "runtime.pocket.checkpoint_every=10"),
        *("--set", "runtime.training.checkpoint_every_steps=1"),
    ]
    for name, reached in moments.items():
        how = signal.SIGINT if name == "scoring" else signal.SIGKILL
        kill_when(study.command("run", *often), reached, name, how)
    done = study.call("run", *often)
    assert done.returncode == 0, tail(done)
    mine, others = payloads(study), payloads(finished)
    assert mine.keys() == others.keys()
    assert [key for key in mine if mine[key] != others[key]] == []


def test_wrong_input_exits_with_2_and_says_what_to_do(tmp_path: Path) -> None:
    done = Study(tmp_path / "store").call("run", "--set", "sft.lerning_rate=1")
    assert done.returncode == 2 and "did you mean 'learning_rate'" in done.stderr
    done = Study(tmp_path / "store").call(
        "run", "--set", "runtime.engine.gpus_per_engine=1", "--until", "mastery"
    )
    assert not any((tmp_path / "store").glob("*/*/record.json"))  # told before the first stage
    assert done.returncode == 2 and "GPU" in done.stderr, tail(done)


def test_ray_job_submit_runs_a_study_and_hands_on_its_exit_code(finished: Study) -> None:
    ray = str(Path(sys.executable).parent / "ray")
    token = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}
    head = subprocess.Popen(
        [ray, "start", "--head", "--block", "--port=0", "--num-cpus=4", f"--dashboard-port={DASHBOARD}"],
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=environment() | token,
    )  # fmt: skip
    try:
        address = f"http://127.0.0.1:{DASHBOARD}"
        wait_for(address)
        job = f"{sys.executable} jobs/run_study.py {STUDY} --runtime {RUNTIME} --store {finished.store}"
        submit = [ray, "job", "submit", f"--address={address}", "--working-dir=.", "--", *job.split()]
        good = call(submit, token)
        assert good.returncode == 0 and "recommended" in good.stdout, tail(good)
        bad = call([*submit, "--set", "name=/"], token)
        assert bad.returncode == 1 and "name" in bad.stdout, tail(bad)
    finally:
        for member in [*psutil.Process(head.pid).children(recursive=True), head]:
            member.kill()
        head.wait()


def call(command: list[str], token: dict[str, str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command, capture_output=True, text=True, cwd=ROOT, env=environment() | token, check=False, timeout=300
    )


def wait_for(address: str) -> None:
    """Until the dashboard of a fresh cluster answers."""
    deadline = time.monotonic() + 120
    while True:
        try:
            urllib.request.urlopen(f"{address}/api/version", timeout=5)
            return
        except urllib.error.HTTPError:
            return  # it answers, and asks for a token
        except OSError:
            assert time.monotonic() < deadline, f"nothing answers at {address}"
            time.sleep(0.5)
