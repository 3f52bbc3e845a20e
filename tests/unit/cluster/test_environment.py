"""Variables that other tools and sites leave in the environment: one line within seconds."""

from __future__ import annotations

import getpass
import socket
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sftlab.cluster.environment import (
    RAY_SOCKET,
    SOCKET_LENGTH,
    check_address,
    check_environment,
    check_temporary_folder,
    name_user,
    without_mpi,
)
from sftlab.cluster.session import ray_cluster
from sftlab.errors import UserError
from sftlab.files import home_folder
from sftlab.tracking.settings import probe, proxy_text
from tests.support.refusals import refused


@pytest.mark.parametrize(
    ("address", "message"),
    [
        ("http://127.0.0.1:8265", "RAY_API_SERVER_ADDRESS"),
        ("https://head:8265", "RAY_API_SERVER_ADDRESS"),
        ("foo", "no address of a Ray cluster; expected HOST:PORT"),
        ("head:port", "no address"),
        ("head:99999", "no address"),
        ("redis://head:6379", "no address of a Ray cluster"),
        (":6379", "no address of a Ray cluster"),
        ("ray://", "no address of a Ray cluster"),
        ("no-such-host.invalid:6379", "no Ray cluster could be joined"),
    ],
)
def test_an_address_that_is_none_is_named(address: str, message: str) -> None:
    with pytest.raises(UserError, match=message) as error:
        check_environment({"RAY_ADDRESS": address})
    assert str(error.value).startswith(f"RAY_ADDRESS={address}: ")


def test_a_dead_cluster_is_found_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"127.0.0.1:{server.getsockname()[1]}"
        check_address(address)
        check_address(f"ray://{address}")
    monkeypatch.setenv("RAY_ADDRESS", address)
    with refused("no Ray cluster could be joined there"), ray_cluster([]):
        raise AssertionError("a cluster was joined")
    check_address("auto")


@given(st.integers(1, 150), st.integers(1, 150))
def test_a_temporary_folder_is_refused_where_sockets_do_not_fit(ray: int, other: int) -> None:
    folders = {"RAY_TMPDIR": "/" + "r" * (ray - 1), "TMPDIR": "/" + "t" * (other - 1)}
    fits = ray + len(RAY_SOCKET) <= SOCKET_LENGTH and other + 37 <= SOCKET_LENGTH
    try:
        check_temporary_folder(folders, folders["TMPDIR"])
        assert fits
    except UserError as error:
        assert not fits and str(error).startswith(("RAY_TMPDIR=", "TMPDIR="))


def test_the_variable_of_a_long_temporary_folder_is_named_with_one_that_fits() -> None:
    folder = "/tmp/" + "x" * 100
    with pytest.raises(UserError, match=r"^TMPDIR=/tmp/x+: has 105 characters, .* set TMPDIR=/tmp"):
        check_environment_with(folder)
    with pytest.raises(UserError, match=r"^TMPDIR=/scratch/y+: .* set RAY_TMPDIR=/tmp"):
        check_environment_with("/scratch/" + "y" * 40)
    check_environment_with("/scratch/job.123456")


def check_environment_with(folder: str) -> None:
    check_temporary_folder({"TMPDIR": folder}, folder)


def test_a_user_without_a_name_gets_one(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("LOGNAME", "USER", "LNAME", "USERNAME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("os.getuid", lambda: 987654321)
    monkeypatch.setenv("LOGNAME", "")
    name_user()
    assert getpass.getuser() == "user987654321"
    monkeypatch.setenv("LOGNAME", "someone")
    name_user()
    assert getpass.getuser() == "someone"


def test_a_user_without_a_home_is_told_the_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/some/where")
    assert home_folder() == Path("/some/where")
    monkeypatch.delenv("HOME")
    monkeypatch.setattr("os.getuid", lambda: 987654321)
    with pytest.raises(UserError, match="set HOME to a folder"):
        home_folder()


def test_variables_of_a_process_manager_are_removed_and_named() -> None:
    given = {"OMPI_COMM_WORLD_RANK": "0", "PMI_SIZE": "2", "PMIX_RANK": "0", "PATH": "/bin", "MPICH": "1"}
    assert without_mpi(given) == ["OMPI_COMM_WORLD_RANK", "PMI_SIZE", "PMIX_RANK"]


def test_a_proxy_that_takes_loopback_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    for name in ("no_proxy", "NO_PROXY", "http_proxy", "HTTP_PROXY"):
        monkeypatch.delenv(name, raising=False)
    address = f"http://127.0.0.1:{port}"
    assert proxy_text(address) == ""
    monkeypatch.setenv("http_proxy", f"http://user:secret@127.0.0.1:{port}")
    with refused(r"through the proxy 127\.0\.0\.1, set no_proxy=127\.0\.0\.1") as error:
        probe(address)
    assert "secret" not in str(error.value)
    monkeypatch.setenv("no_proxy", "127.0.0.1,localhost")
    assert proxy_text(address) == ""
