"""`sftlab run` and an MLflow server that is not there: from the beginning, or no longer when the study is finished."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from sftlab.cli.app import main
from sftlab.studies.knowledge.build import KnowledgeBuild
from sftlab.tracking.settings import probe

TINY = Path(__file__).parents[3] / "jobs" / "configs" / "tiny.yaml"


class Healthy(BaseHTTPRequestHandler):
    """What MLflow answers to a question after its health."""

    def do_GET(self) -> None:
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b"OK")

    def log_message(self, *_: object) -> None:
        return


@pytest.fixture
def server() -> Iterator[HTTPServer]:
    server = HTTPServer(("127.0.0.1", 0), Healthy)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    yield server
    leave(server)
    thread.join()


def leave(server: HTTPServer) -> None:
    server.shutdown()
    server.server_close()


def run(store: Path, port: int) -> int:
    """Exit code of `sftlab run` with its tracking at a port of this machine."""
    address = f"runtime.tracking.address=http://127.0.0.1:{port}"
    with pytest.raises(SystemExit) as left:
        main(["run", str(TINY), "--store", str(store), "--set", address])
    assert isinstance(left.value.code, int)
    return left.value.code


def log(build: KnowledgeBuild) -> str:
    """Asks for the server as the first step of logging does."""
    address = build.runtime.tracking.address
    assert address is not None
    probe(address)
    return f"look at {address}"


@pytest.fixture
def stages(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The stages that were run; they compute nothing."""
    ran: list[str] = []
    monkeypatch.setattr("signal.signal", lambda *_: None)  # a command's answers to signals are not pytest's

    def finish(build: KnowledgeBuild, read: Callable[[], object]) -> object:
        ran.append(build.plan.stages[-1].name)
        return read()

    monkeypatch.setattr("sftlab.execution.run.finish_study", finish)
    monkeypatch.setattr(
        "sftlab.studies.knowledge.stages.results.study_summary", lambda _: "recommended: a model"
    )
    monkeypatch.setattr("sftlab.cli.study.recommended_json", lambda _: {})
    monkeypatch.setattr("sftlab.studies.knowledge.stages.track.track_results", log)
    return ran


def test_a_server_that_was_never_there_is_told_before_anything_runs(
    tmp_path: Path, stages: list[str], server: HTTPServer, capsys: pytest.CaptureFixture[str]
) -> None:
    port = server.server_port
    leave(server)
    assert run(tmp_path / "store", port) == 2 and stages == []
    told = capsys.readouterr()
    assert told.out == "" and "no MLflow server answers there" in told.err and "finished" not in told.err
    assert not list((tmp_path / "store").glob("*/*/record.json"))


def test_a_server_that_goes_away_costs_nothing_and_the_command_that_logs_later_is_told(
    tmp_path: Path,
    stages: list[str],
    server: HTTPServer,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def last_stage(build: KnowledgeBuild, read: Callable[[], str]) -> str:
        stages.append(build.plan.stages[-1].name)
        leave(server)
        return read()

    monkeypatch.setattr("sftlab.execution.run.finish_study", last_stage)
    assert run(tmp_path / "store", server.server_port) == 2 and stages == ["report"]
    told = capsys.readouterr()
    assert "recommended: a model\nreport: " in told.out
    assert "no MLflow server answers there" in told.err
    assert f"The study is finished all the same. `sftlab track {TINY}` with the same options" in told.err


def test_a_server_that_stays_is_logged_to(
    tmp_path: Path, stages: list[str], server: HTTPServer, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(tmp_path / "store", server.server_port) == 0 and stages == ["report"]
    assert capsys.readouterr().out.endswith(f"MLflow: look at http://127.0.0.1:{server.server_port}\n")
