"""The tiny study in an S3 store: killed, taken up elsewhere while the server fails now and then, the same bits."""

from __future__ import annotations

import itertools
import json
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from fnmatch import fnmatch
from pathlib import Path

import pytest

from sftlab.store.objects import Objects, open_objects, parse_address
from tests.e2e.conftest import ROOT, RUNTIME, SFTLAB, STUDY, Study, environment, files, kill_when, tail
from tests.support.s3_server import CREDENTIALS, S3Server, s3_server

pytestmark = pytest.mark.slow
SAME = {
    "facts": ["*.parquet", "topics.json"],
    "model": ["*.safetensors", "tokenizer.json"],
    "mastery": ["mastery.parquet"],
    "training-set": ["*.parquet"],
    "tuned": ["*.safetensors"],
    "change": ["change.json"],
    "controls": ["controls.json"],
    "updates": ["updates.parquet"],
    "evaluation": ["answers.parquet", "divergence.parquet"],
    "results": ["groups.parquet", "choice.parquet"],
    "best": ["*.safetensors"],
}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    with s3_server(tmp_path_factory.mktemp("s3")) as started:
        yield started


def command(server: S3Server, mirror: Path, name: str, *options: str) -> list[str]:
    words = [str(SFTLAB), name, str(STUDY), "--runtime", str(RUNTIME), "--store", server.address("tiny")]
    return [*words, "--set", f"runtime.mirror={mirror}", *options]


def call(command: list[str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, capture_output=True, text=True, timeout=600, cwd=ROOT, env=environment())


def stored(objects: Objects) -> dict[str, bytes]:
    """The bytes of the results, by path."""
    found = {}
    for name in objects.below():
        stage, _, rest = name.partition("/")
        if "/work/" not in name and any(fnmatch(Path(rest).name, pattern) for pattern in SAME.get(stage, ())):
            found[name] = objects.read(name) or b""
    return found


@contextmanager
def troubled(server: S3Server) -> Iterator[None]:
    """Every ten seconds two requests are answered with 500, and all others late."""
    over = threading.Event()

    def trouble() -> None:
        for late in itertools.count():
            server.order(errors=2, seconds=0.01 + late * 1e-6)  # the same order twice would be one
            if over.wait(10):  # a request is tried six times: the third try must come before the next order
                return

    thread = threading.Thread(target=trouble)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
        server.order()


@pytest.mark.timeout(1800)
def test_a_killed_study_is_finished_by_a_machine_with_an_empty_mirror(
    finished: Study, server: S3Server, tmp_path: Path
) -> None:
    objects = open_objects(parse_address(server.address("tiny")))
    one, two = tmp_path / "one", tmp_path / "two"
    track = ("--set", "runtime.track=false", "--set", "runtime.pocket.checkpoint_every=10")

    def answered() -> bool:
        time.sleep(0.5)  # the server has other things to do
        return any(name.endswith("answers.parquet") for name in objects.below("evaluation"))

    kill_when(command(server, one, "run", *track), answered, "answering", signal.SIGKILL)
    tuned = {name for name in objects.below("tuned") if name.endswith("record.json")}
    assert len(tuned) == 4 and not objects.below("results")
    shutil.rmtree(one)

    planned = call(command(server, two, "plan", "--json"))
    assert planned.returncode == 0, tail(planned)
    begun = [step for step in json.loads(planned.stdout)["steps"] if "begun" in step["reason"]]
    assert {step["stage"] for step in begun} == {"evaluation"}
    with troubled(server):
        done = call(command(server, two, "run", *track))
    assert done.returncode == 0 and "recommended" in done.stdout, tail(done)
    assert {name for name in objects.below("tuned") if name.endswith("record.json")} == tuned

    mine = stored(objects)
    others = {k: v for stage, names in SAME.items() for k, v in files(finished.store, stage, names).items()}
    assert mine.keys() == others.keys()
    assert [name for name in mine if mine[name] != others[name]] == []
    left = [name for name in objects.below() if name.startswith(("locks/", "sessions/", "ray-train/check"))]
    assert left == [] and not any("/work/" in name for name in objects.below())
    for secret in (CREDENTIALS["AWS_SECRET_ACCESS_KEY"], CREDENTIALS["AWS_ACCESS_KEY_ID"]):
        assert secret not in done.stdout + done.stderr
        assert not any(
            secret.encode() in (objects.read(n) or b"") for n in objects.below() if n.endswith("json")
        )

    flipped = next(name for name in mine if name.endswith("groups.parquet"))
    objects.write(flipped, mine[flipped][:-1] + bytes([mine[flipped][-1] ^ 1]))
    short = next(name for name in mine if name.startswith("best/") and name.endswith(".safetensors"))
    objects.write(short, mine[short][:-1])
    again = call(command(server, tmp_path / "three", "run", *track))
    assert again.returncode == 0 and "recommended" in again.stdout, tail(again)
    told = [line for line in (again.stdout + again.stderr).splitlines() if "set aside as s3://" in line]
    assert sorted(line.partition("/")[0] for line in told) == ["best", "results"], tail(again)
    assert stored(objects) == mine


SWEEP = """
name: bucket-sweep
study: {study}
axes: {{data: [4], size: [4], seed: [0, 1], strategy: [restore, wise-ft], percent: [0, 10]}}
"""


@pytest.mark.rest
@pytest.mark.timeout(1800)
def test_a_sweep_in_a_bucket_is_found_by_a_machine_with_an_empty_mirror(
    finished: Study, server: S3Server, tmp_path: Path
) -> None:
    objects = open_objects(parse_address(server.address("sweep")))
    for stage in SAME:  # what the study has made need not be made again
        for path in sorted((finished.store / stage).rglob("*"), key=lambda path: path.name == "record.json"):
            if path.is_file():
                objects.write(str(path.relative_to(finished.store)), path.read_bytes())
    file = tmp_path / "sweep.yaml"
    file.write_text(SWEEP.format(study=STUDY))

    def sweep(mirror: str) -> str:
        words = [str(SFTLAB), "sweep", str(file), "--runtime", str(RUNTIME)]
        words += ["--store", server.address("sweep"), "--set", f"runtime.mirror={tmp_path / mirror}"]
        done = call(words)
        assert done.returncode == 0, tail(done)
        assert "MLflow: " in done.stdout  # which reads the tables of all that was found
        return done.stdout.partition("recommended: ")[2].partition("report: ")[0]

    told = sweep("one")
    after = stored(objects)
    assert len([name for name in after if name.startswith("tuned/") and name.endswith(".safetensors")]) == 5
    assert told and sweep("two") == told
    again = stored(objects)
    assert again.keys() == after.keys()
    assert [name for name in after if again[name] != after[name]] == []
