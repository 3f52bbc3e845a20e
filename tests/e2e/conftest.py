"""One tiny study, run once from the command line; the tests look at what it left, repeat it and disturb it."""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

import psutil
import pytest

from tests.support.planted import PLANTED

ROOT = Path(__file__).parents[2]
STUDY = ROOT / "jobs" / "configs" / "tiny.yaml"
RUNTIME = ROOT / "jobs" / "configs" / "runtimes" / "laptop-2cpu.yaml"
SFTLAB = Path(sys.executable).parent / "sftlab"


@dataclass(frozen=True)
class Study:
    """A study file with a store of its own, and where its Ray wrote its logs if they are kept."""

    store: Path
    ray: Path | None = None

    def command(self, name: str, *options: str) -> list[str]:
        return [
            str(SFTLAB),
            name,
            str(STUDY),
            "--runtime",
            str(RUNTIME),
            "--store",
            str(self.store),
            *options,
        ]

    def call(
        self, name: str, *options: str, timeout: float = 600, extra: Mapping[str, str] = MappingProxyType({})
    ) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            self.command(name, *options),
            capture_output=True,
            text=True,
            timeout=timeout,
            cwd=ROOT,
            env=environment() | extra,
        )


# Set in this process by Ray and by MLflow while other tests use them; a command of its own must not see them.
LEFT_OUT = {"RAY_ADDRESS", "MLFLOW_TRACKING_URI", "MLFLOW_REGISTRY_URI"}


def environment() -> dict[str, str]:
    return {key: value for key, value in os.environ.items() if key not in LEFT_OUT}


def tail(done: subprocess.CompletedProcess[str]) -> str:
    return (done.stdout + done.stderr)[-4000:]


def files(store: Path, stage: str, names: Sequence[str]) -> dict[str, bytes]:
    """The bytes of the named files of a stage, by path below the store."""
    found = [path for name in names for path in (store / stage).rglob(name)]
    return {
        str(path.relative_to(store)): path.read_bytes() for path in sorted(found) if "work" not in path.parts
    }


def kill_when(command: list[str], reached: Callable[[], bool], name: str, how: int) -> None:
    """Start a run; as soon as a moment is reached press Ctrl-C, or SIGKILL it with all its processes."""
    process = subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd=ROOT, env=environment()
    )
    deadline = time.monotonic() + 900
    while not reached():
        assert process.poll() is None, f"the run ended before it could be killed while {name}"
        assert time.monotonic() < deadline, f"{name} was not reached"
        time.sleep(0.05)
    if how == signal.SIGINT:
        process.send_signal(how)
        assert process.wait(timeout=120) == 130
        return
    family = [process, *psutil.Process(process.pid).children(recursive=True)]
    for member in family:
        try:
            member.send_signal(signal.SIGKILL)
        except psutil.NoSuchProcess:
            continue
    process.wait()


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Study:
    """The tiny study, run to its report without disturbance, with secrets in its environment.

    The processes of a test run share it: the first that asks runs it. What it printed is in run.log beside its store.
    """
    shared = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        shared = shared.parent
    place = shared / "finished"
    study = Study(place / "store", place / "ray")
    with (shared / "finished.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (place / "complete").exists():
            assert not place.exists(), "another process of this test run could not finish the tiny study"
            place.mkdir()
            run_with_secrets(study)
            (place / "complete").touch()
    return study


def run_with_secrets(study: Study) -> None:
    """Run the study with planted secrets, and keep the logs of its Ray."""
    assert study.ray is not None
    # Ray's sockets need a short path; its last processes may still write there when the run is over.
    with tempfile.TemporaryDirectory(prefix="e2e-", dir="/tmp", ignore_cleanup_errors=True) as folder:
        done = study.call("run", extra=PLANTED | {"RAY_TMPDIR": folder})
        (study.store.parent / "run.log").write_text(done.stdout + done.stderr)
        assert done.returncode == 0, tail(done)
        for path in sorted(Path(folder).rglob("*")):
            if path.is_file() and not path.is_symlink():
                copy = study.ray / path.relative_to(folder)
                copy.parent.mkdir(parents=True, exist_ok=True)
                with contextlib.suppress(FileNotFoundError):  # one of those processes took it away
                    shutil.copyfile(path, copy)
