"""Variables of the environment that would stop Ray or vLLM minutes later or with a traceback: found within seconds."""

from __future__ import annotations

import getpass
import os
import socket
import tempfile
from collections.abc import Mapping
from urllib.parse import urlsplit

from sftlab.errors import UserError

ADDRESS = "RAY_ADDRESS"
CONNECT_SECONDS = 5.0
CLIENT_PORT = 10001  # of ray:// without a port
SOCKET_LENGTH = 107  # characters of the path of a socket
# What is put after the temporary folder for a socket: by Ray with its longest process id, and by vLLM.
RAY_SOCKET = "/ray/session_2026-01-01_00-00-00_000000_1234567/sockets/plasma_store"
VLLM_SOCKET = "/00000000-0000-0000-0000-000000000000"
# Whatever another tool left there, Ray Train has to work as this program expects.
FORCED = {"RAY_TRAIN_V2_ENABLED": "1"}
# Turns that a waiting OpenMP thread spins before it sleeps. Spinning threads lose a time slice whenever anything else
# runs, and the default costs a factor of ten in processor time on two busy cores. Fewer turns cost less there and make
# small steps slower on idle cores (docs/results/speed.md). Who runs several programs at a time sets 100.
SHORT_SPIN = ("GOMP_SPINCOUNT", "10000")
# Variables by which one process of an MPI job says which rank it is; a training worker is another rank.
MPI_PREFIXES = ("OMPI_", "PMI_", "PMIX_", "MV2_COMM_")


def check_environment(environment: Mapping[str, str] = os.environ) -> None:
    """Raises UserError for an address at which no cluster can be joined, or a folder in which Ray cannot start."""
    address = environment.get(ADDRESS)
    if address:
        check_address(address)
    else:
        check_temporary_folder(environment, tempfile.gettempdir())


def check_address(address: str) -> None:
    """Raises UserError where RAY_ADDRESS is no address of a cluster, or nothing answers there within seconds."""
    if address in ("auto", "local"):
        return
    expected = "HOST:PORT of the cluster's head, such as 10.0.0.1:6379, ray://10.0.0.1:10001, or auto"
    advice = f"unset {ADDRESS} to run on this machine."
    if address.startswith(("http://", "https://")):
        raise UserError(
            "this is the address for `ray job submit`, which reads RAY_API_SERVER_ADDRESS",
            place=f"{ADDRESS}={address}",
            value=address,
            expected=expected,
            advice=advice,
        )
    try:
        parts = urlsplit(address if "://" in address else f"//{address}")
        port = parts.port or (CLIENT_PORT if parts.scheme == "ray" else None)
    except ValueError as error:
        raise UserError(
            f"is no address ({error})",
            place=f"{ADDRESS}={address}",
            value=address,
            expected=expected,
            advice=advice,
        ) from error
    if parts.scheme not in ("", "ray") or not parts.hostname or port is None:
        raise UserError(
            "is no address of a Ray cluster",
            place=f"{ADDRESS}={address}",
            value=address,
            expected=expected,
            advice=advice,
        )
    try:
        socket.create_connection((parts.hostname, port), CONNECT_SECONDS).close()
    except OSError as error:
        raise UserError(
            f"no Ray cluster could be joined there ({error})",
            place=f"{ADDRESS}={address}",
            value=address,
            advice=f"start it, or unset {ADDRESS} to run on this machine; what is finished is kept.",
        ) from error


def check_temporary_folder(environment: Mapping[str, str], default: str) -> None:
    """Raises UserError where the sockets of a local Ray or of vLLM would have too long a path.

    default: the temporary folder of this process.
    """
    ray = next((name for name in ("RAY_TMPDIR", "TMPDIR") if environment.get(name)), None)
    found = (
        (ray, environment[ray] if ray else default, RAY_SOCKET, "RAY_TMPDIR=/tmp"),
        ("TMPDIR" if environment.get("TMPDIR") else None, default, VLLM_SOCKET, "TMPDIR=/tmp"),
    )
    for name, folder, ending, setting in reversed(found):
        most, length = SOCKET_LENGTH - len(ending), len(os.fsencode(folder))
        if length > most:
            raise UserError(
                f"has {length} characters, and the sockets below it may have {SOCKET_LENGTH}",
                place=f"{f'{name}=' if name else 'the temporary folder '}{folder}",
                value=folder,
                advice=f"set {setting}, or another folder of at most {most} characters.",
            )


def name_user() -> None:
    """Give a user without a name, as in containers, one that torch and others may ask for."""
    try:
        getpass.getuser()
    except (KeyError, OSError):
        os.environ["LOGNAME"] = f"user{os.getuid()}"


def spin_briefly() -> None:
    """Let waiting OpenMP threads of this process sleep soon; call it before torch is imported."""
    os.environ.setdefault(*SHORT_SPIN)


def without_mpi(environment: Mapping[str, str]) -> list[str]:
    """The variables of an MPI job that a training worker must not see."""
    return [name for name in environment if name.startswith(MPI_PREFIXES)]
