"""A cluster that does not answer, or wants another token, is one line; a local Ray that is late is started again."""

from __future__ import annotations

import os
import socket
from typing import Any

import pytest
import ray

from sftlab.cluster.environment import SHORT_SPIN
from sftlab.cluster.session import WORKER_ENVIRONMENT, ray_cluster, start_with_retries
from sftlab.errors import UserError

V2 = "RAY_TRAIN_V2_ENABLED"


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (
            ConnectionError("Failed to connect to Ray cluster at 192.0.2.1:6379"),
            "no Ray cluster could be joined",
        ),
        (ray.exceptions.RpcError("unavailable", 14), "no Ray cluster could be joined"),
        (ray.exceptions.AuthenticationError("InvalidAuthToken"), "the cluster refuses this token"),
    ],
)
def test_a_cluster_that_cannot_be_joined_is_the_user_s_to_mend(
    error: Exception, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(**_: object) -> None:
        raise error

    monkeypatch.setenv("RAY_AUTH_MODE", "token")
    monkeypatch.setenv("RAY_AUTH_TOKEN", "0" * 64)
    monkeypatch.setattr(ray, "init", refuse)
    with socket.create_server(("127.0.0.1", 0)) as server:
        monkeypatch.setenv("RAY_ADDRESS", f"127.0.0.1:{server.getsockname()[1]}")
        with pytest.raises(UserError, match=message), ray_cluster([]):
            raise AssertionError("a cluster was joined")


@pytest.mark.parametrize("given", ["0", "", "1", None])
def test_ray_train_works_as_expected_here_and_in_workers_whatever_is_given(
    given: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Other variables that are given hold in this process, and the turns of waiting threads in workers too."""
    seen: list[tuple[dict[str, str], dict[str, str]]] = []

    def join(**options: Any) -> None:
        seen.append((dict(os.environ), options["runtime_env"]["env_vars"]))
        raise ConnectionError

    for name in WORKER_ENVIRONMENT:
        monkeypatch.setenv(name, "given")
    monkeypatch.setenv(V2, given or "")
    if given is None:
        monkeypatch.delenv(V2)
    monkeypatch.setenv("RAY_AUTH_MODE", "token")
    monkeypatch.setenv("RAY_AUTH_TOKEN", "0" * 64)
    monkeypatch.setattr(ray, "init", join)
    with socket.create_server(("127.0.0.1", 0)) as server:
        monkeypatch.setenv("RAY_ADDRESS", f"127.0.0.1:{server.getsockname()[1]}")
        with pytest.raises(UserError, match="no Ray cluster could be joined"), ray_cluster([]):
            raise AssertionError("a cluster was joined")
    ((here, workers),) = seen
    assert here[V2] == workers[V2] == "1"
    assert {here[name] for name in WORKER_ENVIRONMENT if name != V2} == {"given"}
    assert workers.items() >= (WORKER_ENVIRONMENT | {SHORT_SPIN[0]: "given"}).items()


@pytest.mark.parametrize(("late", "starts"), [(0, 1), (2, 3)])
def test_a_local_ray_that_is_late_is_started_again(late: int, starts: int) -> None:
    done: list[str] = []

    def start() -> None:
        done.append("start")
        if done.count("start") <= late:
            raise Exception("The current node timed out during startup. This could happen because ...")

    start_with_retries(start, lambda: done.append("stop"))
    assert (done.count("start"), done.count("stop")) == (starts, late)


def test_a_local_ray_that_never_starts_in_time_is_a_user_error_and_other_errors_are_not() -> None:
    def late() -> None:
        raise Exception("The current node timed out during startup.")

    def broken() -> None:
        raise OSError("disk full")

    with pytest.raises(UserError, match="3 attempts"):
        start_with_retries(late, lambda: None)
    with pytest.raises(OSError, match="disk full"):
        start_with_retries(broken, lambda: None)
