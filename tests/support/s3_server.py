"""A real S3 server (moto's) on loopback, with faults on order.

Run as a program, `python tests/support/s3_server.py PORT FAULTS`, it serves until it is killed. FAULTS is a JSON
file that may
appear at any time: `{"errors": 3}` answers the next three requests with 500, `{"seconds": 0.5}` lets each wait.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

BUCKET = "results"
CREDENTIALS = {
    "AWS_ACCESS_KEY_ID": "test-key-id",
    "AWS_SECRET_ACCESS_KEY": "planted-secret-of-the-tests",
    "AWS_EC2_METADATA_DISABLED": "true",
    "AWS_REGION": "us-east-1",
}


@dataclass(frozen=True)
class S3Server:
    """Where the server answers, and the file that orders its faults."""

    port: int
    faults: Path

    def address(self, prefix: str) -> str:
        return f"s3://{BUCKET}/{prefix}?endpoint_override=127.0.0.1:{self.port}&scheme=http"

    def order(self, **faults: float) -> None:
        """From now on these faults; none ends them."""
        part = self.faults.with_suffix(".part")
        part.write_text(json.dumps(faults))
        part.replace(self.faults)


@contextmanager
def s3_server(folder: Path) -> Iterator[S3Server]:
    """A server with an empty bucket, ended with the context. Sets the credentials in this process's environment."""
    os.environ.update(CREDENTIALS)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        server = S3Server(free.getsockname()[1], folder / "faults.json")
    process = subprocess.Popen(
        [sys.executable, __file__, str(server.port), str(server.faults)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        _make_bucket(server, process)
        yield server
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()


def _make_bucket(server: S3Server, process: subprocess.Popen[bytes]) -> None:
    url = f"http://127.0.0.1:{server.port}/{BUCKET}"
    deadline = time.monotonic() + 240
    while True:
        assert process.poll() is None, "the S3 server ended"
        try:
            urllib.request.urlopen(urllib.request.Request(url, method="PUT"), timeout=120).close()
            return
        except OSError:  # refused, or late on a busy machine
            assert time.monotonic() < deadline, "the S3 server does not answer"
            time.sleep(0.1)


def serve(port: int, faults: Path) -> None:
    from moto.server import DomainDispatcherApplication, create_backend_app
    from werkzeug.serving import WSGIRequestHandler, make_server

    inner = DomainDispatcherApplication(create_backend_app)
    guard, left = threading.Lock(), {"order": "", "errors": 0}

    def application(environ: dict[str, Any], start_response: Any) -> Any:
        order = faults.read_text() if faults.exists() else "{}"
        found = json.loads(order)
        with guard:
            if order != left["order"]:
                left.update(order=order, errors=found.get("errors", 0))
            fails = left["errors"] > 0
            left["errors"] -= fails
        time.sleep(found.get("seconds", 0))
        if fails:
            start_response("500 Internal Server Error", [("Content-Length", "0")])
            return [b""]
        return inner(environ, start_response)

    class Quiet(WSGIRequestHandler):
        protocol_version = "HTTP/1.1"

        def log(self, *_: object) -> None:
            return None

    make_server("127.0.0.1", port, application, threaded=True, request_handler=Quiet).serve_forever()


if __name__ == "__main__":
    serve(int(sys.argv[1]), Path(sys.argv[2]))
