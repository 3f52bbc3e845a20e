"""A whole sweep from the command line: killed, run twice at once, run again; equal to the study bit for bit."""

from __future__ import annotations

import json
import re
import shutil
import sqlite3
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote

import psutil
import pytest
import yaml

from tests.e2e.conftest import ROOT, RUNTIME, SFTLAB, Study, environment, files, kill_when, tail
from tests.support.mlflow_server import browser, dom, free_port, serve
from tests.support.own_strategy import write_documented_files

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run

pytestmark = pytest.mark.slow

SWEEP = ROOT / "jobs" / "configs" / "sweeps" / "tiny.yaml"
TRIALS = 16
# Runs outside of the test's process: vLLM changes torch's threads for all that follows.
LOAD = """
import sys
import mlflow
from transformers import AutoModelForCausalLM, AutoTokenizer

mlflow.set_tracking_uri(sys.argv[1])
folder = mlflow.artifacts.download_artifacts("models:/tiny-sweep@champion", dst_path=sys.argv[2])
model = AutoModelForCausalLM.from_pretrained(folder)
tokenizer = AutoTokenizer.from_pretrained(folder)
ids = tokenizer(sys.argv[3], return_tensors="pt").input_ids
told = model.generate(ids, max_new_tokens=8, do_sample=False)[0, ids.shape[1] :].tolist()

from vllm import LLM, SamplingParams

engine = LLM(folder, dtype="float32", max_model_len=64, disable_log_stats=True)
asked = {"prompt_token_ids": ids[0].tolist()}
(answer,) = engine.generate([asked], SamplingParams(temperature=0, max_tokens=8), use_tqdm=False)
print("TOLD", told)
print("ANSWER", list(answer.outputs[0].token_ids))
"""

STAGES = {"tuned": ["*.safetensors"], "change": ["change.json"], "evaluation": ["answers.parquet"]}


def sweep(store: Path, *options: str) -> list[str]:
    return [str(SFTLAB), "sweep", str(SWEEP), "--runtime", str(RUNTIME), "--store", str(store), *options]


def start(store: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        sweep(store), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, cwd=ROOT, env=environment()
    )


def stamps(store: Path) -> dict[Path, int]:
    found = [path for stage in STAGES for path in (store / stage).rglob("*") if path.is_file()]
    return {path: path.stat().st_mtime_ns for path in found}


def kill_an_engine(sweeps: Sequence[subprocess.Popen[str]]) -> None:
    """Kill the first engine that is seen in one of the sweeps: while it starts, waits or answers."""
    while any(process.poll() is None for process in sweeps):
        for process in sweeps:
            for child in psutil.Process(process.pid).children(recursive=True):
                try:
                    if any("ray::EngineWorker" in part for part in child.cmdline()):
                        child.kill()
                        return
                except psutil.NoSuchProcess:
                    continue
        time.sleep(0.05)
    pytest.fail("no engine was seen")


@pytest.fixture(scope="module")
def swept(finished: Study, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The store of a sweep that was killed while it evaluated, and then run by two processes at once.

    An engine of theirs is killed. The store begins with the facts, the model and the
    mastery of the finished study, and with none of its cells.
    """
    store = tmp_path_factory.mktemp("sweep") / "store"
    for stage in ("facts", "model", "mastery"):
        shutil.copytree(finished.store / stage, store / stage)
    kill_when(sweep(store), lambda: any(store.glob("sweeps/*/trials/*.json")), "evaluating", 9)
    before = stamps(store)
    both = [start(store), start(store)]
    kill_an_engine(both)
    for process in both:
        output, _ = process.communicate(timeout=600)
        assert process.returncode == 0, output[-4000:]
        assert "recommended: " in output and "MLflow: " in output, output[-4000:]
    committed = {path for path in before if (path.parents[0] / "record.json") in before}
    assert {path: stamps(store)[path] for path in committed} == {path: before[path] for path in committed}
    return store


def test_a_sweep_s_cells_are_those_of_the_study_to_the_bit(finished: Study, swept: Path) -> None:
    shared = 0
    for stage, names in STAGES.items():
        mine, others = files(swept, stage, names), files(finished.store, stage, names)
        common = mine.keys() & others.keys()
        assert [name for name in common if mine[name] != others[name]] == []
        shared += len(common)
    assert shared == 4 + 4 + 4 * 3 + 1  # tuned models, their changes, their ladders, the base model


def test_trials_that_share_a_model_built_it_once(swept: Path) -> None:
    assert len(list(swept.glob("tuned/*/record.json"))) == TRIALS // 2
    assert len(list(swept.glob("evaluation/*/record.json"))) == 8 * (1 + 2 * 2) + 1
    assert len(list(swept.glob("sweeps/*/trials/*.json"))) == TRIALS


def test_a_second_run_begins_nothing_and_changes_nothing(swept: Path) -> None:
    before = stamps(swept)
    done = subprocess.run(sweep(swept), capture_output=True, text=True, cwd=ROOT, env=environment())
    assert done.returncode == 0 and "recommended: " in done.stdout, tail(done)
    assert "training sets: " not in done.stderr + done.stdout  # nothing was begun
    assert stamps(swept) == before


def test_the_report_and_the_recommended_model_are_there(swept: Path) -> None:
    (page,) = swept.glob("sweep-report/*/report.html")
    assert "<svg" in page.read_text()
    (choice,) = swept.glob("sweep-best/*/choice.json")
    (folder,) = choice.parent.glob("restored-*")
    assert (folder / "model.safetensors").exists() and (folder / "tokenizer.json").exists()


def test_where_the_time_went_can_be_printed(swept: Path) -> None:
    command = [str(SFTLAB), "report", str(SWEEP), "--store", str(swept), "--time"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, env=environment())
    assert done.returncode == 0 and f"({TRIALS} trials)" in done.stdout, tail(done)
    assert all(stage in done.stdout for stage in ("tuned", "evaluation", "waiting"))


def test_every_trial_is_logged_once_although_two_sweeps_logged_it_while_they_ran(swept: Path) -> None:
    with sqlite3.connect(swept / "mlflow.db") as database:
        rows = database.execute(
            "select tags.value from tags join runs using (run_uuid) "
            "where tags.key = 'sftlab.trial' and runs.lifecycle_stage = 'active'"
        ).fetchall()
    assert len(rows) == len(set(rows)) == TRIALS + 1  # and the base model


def test_the_champion_loads_in_transformers_and_in_vllm_and_is_the_recommended_model(
    swept: Path, tmp_path: Path
) -> None:
    address = f"sqlite:///{swept / 'mlflow.db'}"
    alone = environment() | {
        "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
        "VLLM_CPU_OMP_THREADS_BIND": "nobind",
        "VLLM_CPU_KVCACHE_SPACE": "1",
        "TORCH_COMPILE_DISABLE": "1",
    }
    words = [sys.executable, "-c", LOAD, address, str(tmp_path / "champion"), "Who is it?"]
    done = subprocess.run(words, capture_output=True, text=True, timeout=500, env=alone, check=False)
    found = dict(re.findall(r"^(TOLD|ANSWER) (.*)$", done.stdout, re.MULTILINE))
    assert done.returncode == 0 and found, done.stderr[-3000:]
    assert found["TOLD"] == found["ANSWER"] and json.loads(found["TOLD"])
    (recommended,) = swept.glob("sweep-best/tiny-sweep-*/restored-*")
    (champion,) = (tmp_path / "champion").rglob("model.safetensors")
    assert champion.read_bytes() == (recommended / "model.safetensors").read_bytes()


def test_a_browser_shows_the_trials_of_the_sweep_side_by_side_and_its_champion(
    swept: Path, tmp_path: Path
) -> None:
    from mlflow import MlflowClient

    browser()
    client = MlflowClient(tracking_uri=f"sqlite:///{swept / 'mlflow.db'}")
    (experiment,) = {run.info.experiment_id for run in _trials(client)}
    best = next(run for run in _trials(client) if run.info.run_name.startswith("★"))
    other = next(run for run in _trials(client) if run.info.run_id != best.info.run_id)
    ids = quote(json.dumps([best.info.run_id, other.info.run_id]))
    with serve(swept / "mlflow.db", swept / "mlartifacts", free_port()) as (address, _):
        page = dom(
            f"{address}/#/compare-runs?runs={ids}&experiments={quote(json.dumps([experiment]))}", tmp_path
        )
        assert "Comparing 2 Runs" in page and best.info.run_name in page and other.info.run_name in page
        assert 'class="parcoords"' in page and "accuracy/test" in page
        registry = dom(f"{address}/#/models/tiny-sweep", tmp_path)
        assert "champion" in registry and "Version 1" in registry


def _trials(client: MlflowClient) -> list[Run]:
    experiments = [experiment.experiment_id for experiment in client.search_experiments()]
    return list(client.search_runs(experiments, "tags.`sftlab.kind` = 'trial'"))


def test_a_server_that_is_gone_at_the_end_costs_the_logging_alone_which_track_makes_up_for(
    swept: Path,
) -> None:
    gone = sweep(swept, "--set", "runtime.tracking.address=http://127.0.0.1:9")
    done = subprocess.run(gone, capture_output=True, text=True, cwd=ROOT, env=environment())
    assert done.returncode == 2 and "recommended: " in done.stdout, tail(done)
    assert f"`sftlab track {SWEEP}` with the same options logs it" in done.stderr
    command = [str(SFTLAB), "track", str(SWEEP), "--store", str(swept)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, env=environment())
    assert (
        done.returncode == 0
        and "MLflow: MLFLOW_DISABLE_TELEMETRY=true mlflow ui --backend-store-uri " in done.stdout
    ), tail(done)


@pytest.mark.rest
def test_the_documented_strategy_of_one_s_own_runs_with_engines_without_a_pythonpath(
    swept: Path, tmp_path: Path
) -> None:
    write_documented_files(tmp_path)
    command = [str(SFTLAB), "sweep", "jobs/configs/own/clip_sweep.yaml", "--runtime", str(RUNTIME)]
    command += ["--set", "runtime.sweep.engines=1"]
    plain = {key: value for key, value in environment().items() if key != "PYTHONPATH"}
    done = subprocess.run(
        [*command, "--store", str(swept)], capture_output=True, text=True, cwd=tmp_path, env=plain
    )
    assert done.returncode == 0 and "recommended: " in done.stdout, tail(done)
    (page,) = swept.glob("sweep-report/clip-sweep-*/report.html")
    assert "clip region=mlp" in page.read_text()
    assert len(list(swept.glob("tuned/*/record.json"))) == TRIALS // 2  # those that were there


@pytest.mark.rest
def test_a_search_that_is_killed_goes_on_with_its_finished_points_and_to_a_longer_one(
    swept: Path, tmp_path: Path
) -> None:
    """Optuna over shares of buckets, strategies with and without a probe run, and percentages; ASHA over epochs."""
    axes = {"data": "mixture", "size": [4], "seed": [0, 1], "percent": {"low": 0, "high": 40}}
    axes |= {"strategy": ["restore", {"name": "masked-update", "percent": 20, "size": 2}]}
    file = tmp_path / "search.yaml"
    command = [str(SFTLAB), "sweep", str(file), "--runtime", str(RUNTIME), "--store", str(swept)]
    # Each is a process that has to start.
    command += ["--set", "runtime.sweep.trials=2", "--set", "runtime.sweep.engines=1"]

    def ask(points: int) -> None:
        search = {"kind": "optuna", "trials": points, "metric": "dev"}
        study = str(SWEEP.parent / "../tiny.yaml")
        fields = {"axes": axes, "search": search, "halving": {"max_epochs": 2}}
        file.write_text(yaml.safe_dump({"name": "search", "study": study, **fields}))

    def records() -> dict[str, bytes]:
        return {path.name: path.read_bytes() for path in swept.glob("sweeps/search-*/trials/*.json")}

    ask(1)
    kill_when(command, lambda: bool(records()), "searching", 9)
    killed = records()
    ask(2)
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, env=environment())
    assert done.returncode == 0 and "recommended: " in done.stdout, tail(done)
    assert killed.items() <= records().items()
    assert len(list(swept.glob("sweeps/search-*/over/*"))) == 2
    rungs: dict[
        tuple[str, float], set[str]
    ] = {}  # cells of a variant at one score, which their mean gave them
    for record in (json.loads(text) for name, text in records().items() if name not in killed):
        cell, _, variant = record["trial"].partition(" ")
        rungs.setdefault((f"{cell.rpartition('-s')[0]} {variant}", record["score"]), set()).add(cell[-1])
    assert rungs and all(seeds == {"0", "1"} for seeds in rungs.values()), rungs
    command[1] = "report"  # which takes none but a finished sweep
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, env=environment())
    assert done.returncode == 0 and "recommended: " in done.stdout, tail(done)
