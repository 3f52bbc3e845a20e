"""A whole sweep from the command line: killed, run twice at once, run again; equal to the study bit for bit."""

from __future__ import annotations

import shutil
import sqlite3
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path

import psutil
import pytest
import yaml

from tests.e2e.conftest import ROOT, RUNTIME, SFTLAB, Study, environment, files, kill_when, tail
from tests.own_strategy import write_documented_files

pytestmark = pytest.mark.slow

SWEEP = ROOT / "jobs" / "configs" / "sweeps" / "tiny.yaml"
TRIALS = 16
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
                    if any("ray::EvaluationWorker" in part for part in child.cmdline()):
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


def test_a_second_run_takes_seconds_and_changes_nothing(swept: Path) -> None:
    before, started = stamps(swept), time.monotonic()
    done = subprocess.run(sweep(swept), capture_output=True, text=True, cwd=ROOT, env=environment())
    assert done.returncode == 0 and "recommended: " in done.stdout, tail(done)
    assert time.monotonic() - started < 30
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


def test_a_server_that_is_gone_at_the_end_costs_the_logging_alone_which_track_makes_up_for(
    swept: Path,
) -> None:
    gone = sweep(swept, "--set", "runtime.tracking.address=http://127.0.0.1:9")
    done = subprocess.run(gone, capture_output=True, text=True, cwd=ROOT, env=environment())
    assert done.returncode == 2 and "recommended: " in done.stdout, tail(done)
    assert f"`sftlab track {SWEEP}` with the same options logs it" in done.stderr
    command = [str(SFTLAB), "track", str(SWEEP), "--store", str(swept)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, env=environment())
    assert done.returncode == 0 and "MLflow: mlflow ui --backend-store-uri " in done.stdout, tail(done)


def test_the_documented_strategy_of_one_s_own_runs_with_engines_without_a_pythonpath(
    swept: Path, tmp_path: Path
) -> None:
    write_documented_files(tmp_path)
    command = [str(SFTLAB), "sweep", "jobs/configs/own/clip_sweep.yaml", "--runtime", str(RUNTIME)]
    plain = {key: value for key, value in environment().items() if key != "PYTHONPATH"}
    done = subprocess.run(
        [*command, "--store", str(swept)], capture_output=True, text=True, cwd=tmp_path, env=plain
    )
    assert done.returncode == 0 and "recommended: " in done.stdout, tail(done)
    (page,) = swept.glob("sweep-report/clip-sweep-*/report.html")
    assert "clip region=mlp" in page.read_text()
    assert len(list(swept.glob("tuned/*/record.json"))) == TRIALS // 2  # those that were there


def test_a_search_that_is_killed_goes_on_with_its_finished_trials_and_to_a_longer_one(
    swept: Path, tmp_path: Path
) -> None:
    axes = {"data": [0, 4], "size": [4], "seed": [0], "percent": {"low": 0, "high": 40}}
    file = tmp_path / "search.yaml"
    command = [str(SFTLAB), "sweep", str(file), "--runtime", str(RUNTIME), "--store", str(swept)]
    command += ["--set", "runtime.sweep.trials=2"]  # each is a process that has to start

    def ask(trials: int) -> None:
        found = {"kind": "optuna", "trials": trials}
        study = str(SWEEP.parent / "../tiny.yaml")
        file.write_text(yaml.safe_dump({"name": "search", "study": study, "axes": axes, "search": found}))

    def records() -> dict[str, bytes]:
        return {path.name: path.read_bytes() for path in swept.glob("sweeps/search-*/trials/*.json")}

    ask(6)
    kill_when(command, lambda: bool(records()), "searching", 9)
    killed = records()
    assert 1 <= len(killed) < 6
    ask(7)
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, env=environment())
    assert done.returncode == 0 and "recommended: " in done.stdout, tail(done)
    assert killed.items() <= records().items()
    over = list(swept.glob("sweeps/search-*/over/*"))
    assert len(over) == 7 and len(records()) <= 7 + 2  # a point may be drawn twice, or be cut off
    command[1] = "report"  # which takes none but a finished sweep
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, env=environment())
    assert done.returncode == 0 and "recommended: " in done.stdout, tail(done)
