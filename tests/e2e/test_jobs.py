"""The guide's section for one machine, line by line: three nodes, a job, its stop, and the next job.

The cluster wants a token and refuses whoever has none or another, and the secrets of its environment stand nowhere.
"""

from __future__ import annotations

import contextlib
import json
import re
import secrets
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from tests.e2e.conftest import ROOT, RUNTIME, STUDY, Study, environment
from tests.e2e.test_study import payloads
from tests.support.nodes import free_port
from tests.support.planted import PLANTED, SECRETS, holders

pytestmark = pytest.mark.slow

GUIDE = ROOT / "docs" / "cluster.md"
SECTION = "## Try it on one machine"
MARK = "SFTLAB_TEST_WALK"
ENDED = "@@ended"
PATIENCE = 600.0


def commands() -> list[str]:
    """The shell lines of the guide's section, continued ones joined."""
    section = GUIDE.read_text().partition(f"{SECTION}\n")[2].partition("\n## ")[0]
    blocks = re.findall(r"```sh\n(.*?)```", section, re.DOTALL)
    return [line for block in blocks for line in block.replace("\\\n", "").splitlines() if line.strip()]


class Walk:
    """A shell in which the guide's lines are typed, with ports, home and store of its own and the tiny study.

    Secrets stand in its environment, and thereby in that of all nodes.
    """

    def __init__(self, folder: Path) -> None:
        self.store, self.mark = folder / "store", secrets.token_hex(8)
        self.ray = Path(tempfile.mkdtemp(prefix="sft", dir="/tmp"))  # short: Unix sockets lie below
        self.token, port, agent_port = folder / ".ray" / "auth_token", free_port(), free_port()
        self.dashboard, self.agent = f"127.0.0.1:{port}", f"127.0.0.2:{agent_port}"
        self.instead = {
            "source .venv/bin/activate": f"export PATH={Path(sys.executable).parent}:$PATH",
            "jobs/configs/pocket.yaml": str(STUDY.relative_to(ROOT)),
            "$PWD/runs/store": str(self.store),
            "6379": str(free_port()),
            "8265": str(port),
            "/tmp/sftlab-": f"{self.ray}/",
            # Other Ray nodes of this machine may have the usual ports.
            "--head": f"--head --ray-client-server-port={free_port()}",
            "ray start ": f"ray start --dashboard-agent-listen-port={agent_port} ",
        }
        own = {"HOME": str(folder), MARK: self.mark}
        given = environment() | PLANTED
        inherited = {key: value for key, value in given.items() if not key.startswith("RAY_")}
        self.shell = subprocess.Popen(
            ["bash", "--norc"], cwd=ROOT, env=inherited | own | {"RAY_USAGE_STATS_ENABLED": "0"}, text=True,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )  # fmt: skip

    def type(self, line: str) -> tuple[int, str]:
        """Exit status and output of a line of the guide."""
        for written, ours in self.instead.items():
            line = line.replace(written, ours)
        assert self.shell.stdin is not None and self.shell.stdout is not None
        self.shell.stdin.write(f"{line}\nprintf '\\n{ENDED} %s\\n' $?\n")
        self.shell.stdin.flush()
        output: list[str] = []
        for text in self.shell.stdout:
            if text.startswith(ENDED):
                return int(text.split()[1]), "".join(output)
            output.append(text)
        raise AssertionError(f"the shell ended with {line}: {''.join(output)}")

    def submit(self, *words: str) -> tuple[int, str]:
        return self.type(
            f"ray job submit --working-dir . --runtime-env jobs/runtime_env.yaml -- {' '.join(words)}"
        )

    def until(self, reached: Callable[[], bool], job: str) -> None:
        """Wait for a moment of a running job."""
        deadline = time.monotonic() + PATIENCE
        while not reached():
            _, state = self.type(f"ray job status {job}")
            if ("PENDING" not in state and "RUNNING" not in state) or time.monotonic() > deadline:
                raise AssertionError(f"{state}\n{self.type(f'ray job logs {job}')[1]}")

    def sees_three_nodes(self, line: str) -> None:
        """Type the line again, as the guide says, until the last node has appeared."""
        deadline = time.monotonic() + PATIENCE
        while (output := self.type(line)[1]).count("\n 1 node_") != 3:
            assert time.monotonic() < deadline, output
            time.sleep(1)

    def ask(self, path: str, token: str | None, post: object = None, at: str = "") -> tuple[int, str]:
        """Status and content of the answer to one request to the dashboard, or `at` the agent of a node."""
        head = {"Authorization": f"Bearer {token}"} if token else {}
        data = None if post is None else json.dumps(post).encode()
        request = urllib.request.Request(f"http://{at or self.dashboard}{path}", data, head)
        try:
            with urllib.request.urlopen(request, timeout=60) as answer:
                return int(answer.status), answer.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode()

    def end(self) -> None:
        """SIGKILL to the shell and to all that was started from it."""
        deadline = time.monotonic() + 60
        while living := [p for p in psutil.process_iter() if self.owns(p)]:
            assert time.monotonic() < deadline, f"cannot be killed: {living}"
            for process in living:
                with contextlib.suppress(psutil.Error):
                    process.kill()
            time.sleep(0.1)
        self.shell.wait()
        shutil.rmtree(self.ray, ignore_errors=True)

    def owns(self, process: psutil.Process) -> bool:
        with contextlib.suppress(psutil.Error):
            return bool(process.status() != psutil.STATUS_ZOMBIE and process.environ().get(MARK) == self.mark)
        return False


@pytest.fixture
def walk(tmp_path: Path) -> Iterator[Walk]:
    walk = Walk(tmp_path)
    try:
        yield walk
    finally:
        walk.end()


def test_the_guide_s_walk_on_three_nodes(walk: Walk, finished: Study) -> None:
    lines = commands()
    assert sum(line.startswith("ray start ") for line in lines) == 3
    assert lines.pop() == "ray stop"  # it would end every Ray of this machine
    shown = {}
    before: dict[Path, int] = {}
    for line in lines:
        status, output = walk.type(line)
        assert status == 0, f"{line}: {output[-4000:]}"
        shown[line] = output
        if line.startswith("ray status"):
            walk.sees_three_nodes(line)
        if "--no-wait" in line:
            walk.until(lambda: any(walk.store.glob("mastery/**/*.parquet")), "first")
        if line == "ray job stop first":
            before = stamps(walk.store)
    the_job_was_stopped_and_the_next_one_went_on(walk, shown, before)
    mine, others = payloads(Study(walk.store)), payloads(finished)
    assert mine == others  # other nodes, and a stop in between, change no bit
    the_job_s_own_package_runs_and_a_failed_study_fails_the_job(walk)
    who_has_no_token_or_another_is_refused(walk)
    no_secret_is_shown_or_written(walk, "".join(shown.values()))


def the_job_was_stopped_and_the_next_one_went_on(
    walk: Walk, shown: dict[str, str], before: dict[Path, int]
) -> None:
    stopped, finished = shown["ray job logs first"], shown["ray job status second"]
    (second,) = [output for line, output in shown.items() if "--submission-id second" in line]
    assert "was stopped" in walk.type("ray job status first")[1] and "succeeded" in finished
    assert "scoring" in stopped and "Interrupted." in stopped and "report:" not in stopped
    assert "recommended:" in second and "report:" in second
    for log in (stopped, second):  # lines to read later, not bars for a terminal
        assert "\r" not in log and "\x1b[?25l" not in log and "━" not in log
    assert len(before) >= 2 and stamps(walk.store).items() >= before.items()  # nothing was made twice
    assert "to build: nothing" in shown[next(line for line in shown if line.startswith("sftlab plan"))]


def the_job_s_own_package_runs_and_a_failed_study_fails_the_job(walk: Walk) -> None:
    study = f"--config={STUDY} --runtime {RUNTIME} --store {walk.store}"
    code = "import sftlab; print(sftlab.__file__)"
    status, output = walk.submit(
        f"bash -c \"python -c '{code}' && python jobs/run_study.py {study} --set name=/\""
    )
    assert status == 1 and "failed" in output and "name" in output
    assert re.search(r"py_modules_files/\S+/sftlab/__init__.py", output)


def who_has_no_token_or_another_is_refused(walk: Walk) -> None:
    token, sign = walk.token.read_text().strip(), walk.store.parent / "was-here"
    job = {"entrypoint": f"touch {sign}", "submission_id": "stranger"}
    other = token[:-1] + ("1" if token.endswith("0") else "0")
    for given, status in ((None, 401), (other, 403)):
        assert walk.ask("/api/jobs/", given, post=job)[0] == status
        for path in ("/api/jobs/", "/nodes?view=summary", "/api/v0/actors", "/api/cluster_status"):
            assert walk.ask(path, given)[0] == status, path
        assert walk.ask("/api/job_agent/jobs/", given, post=job, at=walk.agent)[0] == status
        assert walk.ask("/api/job_agent/jobs/second/logs", given, at=walk.agent)[0] == status
    status, jobs = walk.ask("/api/jobs/", token)
    assert status == 200 and "second" in jobs and "stranger" not in jobs and not sign.exists()
    refused, output = walk.type(f"RAY_AUTH_TOKEN={other} ray status --address=127.0.0.2:6379")
    assert refused != 0 and "node_" not in output


def no_secret_is_shown_or_written(walk: Walk, shown: str) -> None:
    token = walk.token.read_text().strip()
    told = shown
    for path in (
        "/api/jobs/",
        "/api/v0/jobs?detail=1",
        "/api/v0/runtime_envs?detail=1",
        "/api/v0/workers?detail=1",
    ):
        status, answer = walk.ask(path, token)
        assert status == 200, path
        told += answer
    assert "RAY_JOB_STOP_WAIT_TIME_S" in told, "runtime_env is among what is looked through"
    secrets = (*SECRETS, token)
    assert [secret for secret in secrets if secret in told] == []
    assert any(walk.ray.rglob("job-driver-second.log")), "the jobs' own logs are looked through"
    assert (walk.store / "mlflow.db").is_file()
    assert holders(walk.ray, secrets) == [] and holders(walk.store, secrets) == []


def stamps(store: Path) -> dict[Path, int]:
    """When each committed result was written."""
    return {path: path.stat().st_mtime_ns for path in store.glob("*/*/record.json")}
