"""A real MLflow server on loopback, and its pages as a real browser shows them."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def serve(database: Path, artifacts: Path, port: int) -> Iterator[tuple[str, subprocess.Popen[bytes]]]:
    """Its address and its process, which leads a process group of its own and ends with the context."""
    command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port)]
    command += ["--workers", "1", "--backend-store-uri", f"sqlite:///{database}"]
    command += ["--artifacts-destination", str(artifacts)]
    log = database.with_suffix(".log")
    # Jobs are for agents' evaluation; without their workers the server starts sooner.
    plain = {**os.environ, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "MLFLOW_DISABLE_TELEMETRY": "true"}
    with log.open("wb") as stream:
        process = subprocess.Popen(command, stdout=stream, stderr=stream, env=plain, start_new_session=True)
        try:
            deadline = time.monotonic() + 120
            while "Application startup complete" not in log.read_text():
                assert process.poll() is None and time.monotonic() < deadline, log.read_text()
                time.sleep(0.5)
            yield f"http://127.0.0.1:{port}", process
        finally:
            if process.poll() is None:
                os.killpg(process.pid, 9)
                process.wait()


def browser() -> str:
    """Chromium's path. Where it is not installed the test is skipped, but not in CI, which installs it."""
    found = shutil.which("chromium")
    if found is None and os.environ.get("CI"):
        pytest.fail("chromium is not installed; .ci/run should have done so")
    return found or pytest.skip("chromium is not installed")


def dom(url: str, folder: Path) -> str:
    """What a page has become after its scripts have run."""
    command = [browser(), "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run"]
    command += ["--disable-background-networking", f"--user-data-dir={folder / 'browser'}"]
    command += ["--window-size=2400,9000", "--virtual-time-budget=60000", "--dump-dom", url]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout
