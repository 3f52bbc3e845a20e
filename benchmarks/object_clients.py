"""The client of object stores (pyarrow) and obstore, against one S3 server on loopback.

python -m benchmarks.object_clients --obstore DIR

DIR holds an unpacked obstore (`pip download --no-deps obstore`, then unzip), which is no dependency of the package.
Four questions, each put to both clients: does one of eight writers win who write an object at once and only if it is
absent; what does a signal in the middle of an upload leave; is a write repeated whose answer comes too late; are
credentials read from ~/.aws/credentials. And the time of an object of 100 MiB, the median of three.
"""

from __future__ import annotations

import argparse
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import timedelta
from importlib import import_module
from pathlib import Path
from typing import Any, Protocol

from sftlab.errors import UserError
from sftlab.store import objects
from sftlab.store.objects import Address, Objects, open_objects, parse_address
from tests.support.s3_server import BUCKET, CREDENTIALS, S3Server, s3_server

MIB = 100
RACES, WRITERS = 20, 8
CLIENTS = ("pyarrow", "obstore")


class Client(Protocol):
    """What is asked of both."""

    def upload(self, file: Path, name: str) -> None: ...

    def download(self, name: str, file: Path) -> None: ...

    def write(self, name: str, content: bytes) -> None:
        """Write a small object, with obstore only if it is absent."""


@dataclass(frozen=True)
class Pyarrow:
    objects: Objects

    def upload(self, file: Path, name: str) -> None:
        self.objects.upload(file, name)

    def download(self, name: str, file: Path) -> None:
        self.objects.download(name, file)

    def write(self, name: str, content: bytes) -> None:
        self.objects.write(name, content)


@dataclass(frozen=True)
class Obstore:
    module: Any
    store: Any

    def upload(self, file: Path, name: str) -> None:
        self.module.put(self.store, name, file)

    def download(self, name: str, file: Path) -> None:
        with file.open("wb") as out:
            for chunk in self.module.get(self.store, name).stream(min_chunk_size=2**20):
                out.write(chunk)

    def write(self, name: str, content: bytes) -> None:
        self.module.put(self.store, name, content, mode="create")


def open_client(name: str, address: Address, seconds: float, folder: str) -> Client:
    """A client that waits so long for an answer, and tries six times."""
    if name == "pyarrow":
        objects.REQUEST_SECONDS = seconds
        return Pyarrow(open_objects(address))
    sys.path.insert(0, folder)
    module = import_module("obstore")
    store = import_module("obstore.store").S3Store(
        BUCKET,
        prefix=address.prefix,
        endpoint=f"http://{address.option('endpoint_override')}",
        region="us-east-1",
        virtual_hosted_style_request=False,
        client_options={"allow_http": True, "timeout": timedelta(seconds=seconds)},
        retry_config={"max_retries": 5, "retry_timeout": timedelta(seconds=30)},
    )
    return Obstore(module, store)


def races(client: Client, there: Objects) -> str:
    """How many races of writers had exactly one winner."""
    won = 0
    for number in range(RACES):

        def write(writer: int, name: str = f"race-{number}") -> int:
            try:
                client.write(name, b"%d" % writer)
            except Exception as error:
                if type(error).__name__ != "AlreadyExistsError":
                    raise
                return 0
            return 1

        with ThreadPoolExecutor(WRITERS) as pool:
            won += sum(pool.map(write, range(WRITERS))) == 1
        assert there.read(f"race-{number}") is not None
    return f"{won} of {RACES}"


def late_answer(client: Client, server: S3Server, there: Objects) -> str:
    """What becomes of a write whose first answer comes after the client's patience."""
    server.order(seconds=2.5)
    end = threading.Timer(3, server.order)
    end.start()
    try:
        client.write("late", b"x")
        said = "written"
    except Exception as error:
        said = type(error).__name__
    end.join()
    time.sleep(3)
    return f"{said}; the object is {'there' if there.read('late') is not None else 'not there'}"


def interrupted(name: str, address: Address, file: Path, given: int, folder: str, there: Objects) -> str:
    """What a process leaves that a signal ends in the middle of an upload: nothing, all, or a part."""
    code = (
        "import sys; from pathlib import Path; from sftlab.store.objects import parse_address\n"
        "from benchmarks.object_clients import open_client\n"
        f"c = open_client({name!r}, parse_address({str(address)!r}), 30, {folder!r})\n"
        f"print('ready', flush=True); c.upload(Path({str(file)!r}), 'cut-{given}')"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    )
    assert process.stdout is not None and process.stdout.readline() == b"ready\n"
    time.sleep(0.7)
    process.send_signal(given)
    process.wait(120)
    time.sleep(1)
    found = there.info(f"cut-{given}")
    return "nothing" if found is None else "all" if found.bytes == file.stat().st_size else "a part"


def with_credentials_file(name: str, address: Address, folder: str) -> str:
    """Whether credentials are found that are in ~/.aws/credentials alone."""
    code = (
        "from sftlab.store.objects import parse_address; from benchmarks.object_clients import open_client\n"
        f"open_client({name!r}, parse_address({str(address)!r}), 5, {folder!r}).write('credentials', b'x')"
    )
    with tempfile.TemporaryDirectory() as home:
        (Path(home) / ".aws").mkdir()
        keys = {key.lower(): CREDENTIALS[key] for key in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")}
        lines = ["[default]", *(f"{key} = {value}" for key, value in keys.items())]
        (Path(home) / ".aws/credentials").write_text("\n".join(lines))
        plain = {key: value for key, value in os.environ.items() if not key.startswith("AWS_")}
        environment = plain | {"HOME": home, "AWS_EC2_METADATA_DISABLED": "true", "AWS_REGION": "us-east-1"}
        done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, timeout=120)
    return "found" if done.returncode == 0 else "not found"


def median(work: Callable[[], None]) -> str:
    """Seconds, the median of three."""
    taken = []
    for _ in range(3):
        began = time.perf_counter()
        work()
        taken.append(time.perf_counter() - began)
    return f"{statistics.median(taken):.1f} s"


def figures(name: str, server: S3Server, file: Path, folder: str) -> dict[str, str]:
    address = parse_address(server.address(name))
    there = open_objects(parse_address(server.address(name)))
    client = open_client(name, address, 30, folder)
    found = {f"upload of {MIB} MiB": median(lambda: client.upload(file, "big"))}
    found["download"] = median(lambda: client.download("big", file.with_suffix(".got")))
    found["races with one winner"] = races(client, there) if name == "obstore" else "has no such write"
    server.order(seconds=0.3)
    for given in (signal.SIGINT, signal.SIGTERM, signal.SIGKILL):
        found[f"left after {given.name}"] = interrupted(name, address, file, given, folder, there)
    server.order()
    found["~/.aws/credentials"] = with_credentials_file(name, address, folder)
    open_objects.cache_clear()
    found["answer too late"] = late_answer(open_client(name, address, 2, folder), server, there)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--obstore", required=True, help="folder with an unpacked obstore")
    given = parser.parse_args()
    if not (Path(given.obstore) / "obstore").is_dir():
        raise UserError("has no package obstore", place=given.obstore, advice="unzip its wheel there.")
    with tempfile.TemporaryDirectory() as folder, s3_server(Path(folder)) as server:
        file = Path(folder) / "file"
        file.write_bytes(os.urandom(2**20) * MIB)
        shown = {name: figures(name, server, file, given.obstore) for name in CLIENTS}
    print("| | " + " | ".join(CLIENTS) + " |\n|---|" + "---|" * len(CLIENTS))
    for row in shown[CLIENTS[0]]:
        print(f"| {row} | " + " | ".join(shown[name][row] for name in CLIENTS) + " |")


if __name__ == "__main__":
    main()
