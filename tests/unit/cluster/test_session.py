"""A cluster that does not answer, or wants another token, is told in a sentence."""

from __future__ import annotations

import socket

import pytest
import ray

from sftlab.cluster.session import ray_cluster
from sftlab.errors import UserError


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
