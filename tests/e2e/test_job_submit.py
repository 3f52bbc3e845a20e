"""A study as a job of a Ray cluster of one node, by `ray job submit`."""

from __future__ import annotations

import secrets
import shutil
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

import psutil
import pytest

from tests.e2e.conftest import ROOT, RUNTIME, STUDY, Study, environment, tail

pytestmark = [pytest.mark.slow, pytest.mark.rest]

DASHBOARD = 8366  # below the range of ports that Ray gives its workers


def test_ray_job_submit_runs_a_study_and_hands_on_its_exit_code(finished: Study, tmp_path: Path) -> None:
    store = shutil.copytree(finished.store, tmp_path / "store")
    ray = str(Path(sys.executable).parent / "ray")
    token = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}
    head = subprocess.Popen(
        [ray, "start", "--head", "--block", "--port=0", "--num-cpus=4", f"--dashboard-port={DASHBOARD}"],
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=environment() | token,
    )  # fmt: skip
    try:
        address = f"http://127.0.0.1:{DASHBOARD}"
        wait_for(address)
        job = f"{sys.executable} jobs/run_study.py {STUDY} --runtime {RUNTIME} --store {store}"
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
