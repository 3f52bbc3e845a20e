"""An MLflow server that answers with fuzzed bytes, and what `sftlab.tracking` makes of the answers."""

from __future__ import annotations

import json
import logging
import os
import socket
import threading
from collections.abc import Callable
from contextlib import suppress
from functools import cache, partial
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, Any

from tests.fuzz.mutate import altered, mutated

if TYPE_CHECKING:
    from tests.fuzz.reader import Reader

EXPERIMENT = {
    "experiment": {
        "experiment_id": "1",
        "name": "sftlab",
        "artifact_location": "mlflow-artifacts:/1",
        "lifecycle_stage": "active",
    }
}
RUNS = {
    "runs": [
        {
            "info": {
                "run_id": "r",
                "run_uuid": "r",
                "experiment_id": "1",
                "status": "FINISHED",
                "start_time": 1,
                "artifact_uri": "mlflow-artifacts:/1/r",
                "lifecycle_stage": "active",
            },
            "data": {
                "metrics": [{"key": "a", "value": 0.5, "timestamp": 1, "step": 0}],
                "params": [{"key": "p", "value": "v"}],
                "tags": [{"key": "sftlab.artifact", "value": "x"}],
            },
            "inputs": {},
        }
    ]
}
MODEL = {
    "info": {
        "model_id": "m-1",
        "experiment_id": "1",
        "name": "n",
        "creation_timestamp_ms": 1,
        "last_updated_timestamp_ms": 1,
        "artifact_uri": "mlflow-artifacts:/1/m",
        "status": "LOGGED_MODEL_READY",
        "source_run_id": "r",
        "tags": [{"key": "sftlab.artifact", "value": "x"}],
    },
    "data": {
        "params": [{"key": "p", "value": "v"}],
        "metrics": [
            {
                "key": "accuracy/test",
                "value": 0.5,
                "timestamp": 1,
                "step": 0,
                "model_id": "m-1",
                "run_id": "r",
            }
        ],
    },
}
MODELS = {"models": [MODEL]}
ALIAS = {
    "model_version": {
        "name": "n",
        "version": "1",
        "creation_timestamp": 1,
        "last_updated_timestamp": 1,
        "current_stage": "None",
        "source": "x",
        "run_id": "r",
        "status": "READY",
        "tags": [{"key": "sftlab.artifact", "value": "x"}],
    }
}
ANSWERS: dict[str, Any] = {
    "/health": "OK",
    "/experiments/get-by-name": EXPERIMENT,
    "/runs/search": RUNS,
    "/logged-models/search": MODELS,
    "/logged-models/m-1": {"model": MODEL},
    "/registered-models/alias": ALIAS,
}


def http(body: bytes, status: bytes = b"200 OK") -> bytes:
    head = (
        b"HTTP/1.1 " + status + b"\r\nContent-Type: application/json\r\nConnection: close\r\nContent-Length: "
    )
    return head + str(len(body)).encode() + b"\r\n\r\n" + body


def answer_text(value: Any) -> bytes:
    return http(value.encode() if isinstance(value, str) else json.dumps(value).encode())


class Server:
    """Listens on loopback. Each request whose path holds `path` gets `answer`, all others their sound one."""

    def __init__(self) -> None:
        self.path = ""
        self.answer = b""
        self.listener = socket.create_server(("127.0.0.1", 0), backlog=64)
        self.address = f"http://127.0.0.1:{self.listener.getsockname()[1]}"
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        while True:
            connection, _ = self.listener.accept()
            with suppress(OSError), connection:
                connection.settimeout(2)
                self._reply(connection)

    def _reply(self, connection: socket.socket) -> None:
        request = b""
        while b"\r\n\r\n" not in request:
            piece = connection.recv(65536)
            if not piece:
                return
            request += piece
        head, _, body = request.partition(b"\r\n\r\n")
        length = next(
            (
                int(line.split(b":")[1])
                for line in head.lower().split(b"\r\n")
                if line.startswith(b"content-length:")
            ),
            0,
        )
        while len(body) < length:
            body += connection.recv(65536)
        asked = head.split(b" ")[1].decode()
        found = next((value for path, value in ANSWERS.items() if path in asked), {})
        connection.sendall(self.answer if self.path and self.path in asked else answer_text(found))
        connection.shutdown(socket.SHUT_WR)
        while connection.recv(65536):
            pass


@cache
def running() -> Server:
    for name, value in {
        "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0",
        "MLFLOW_HTTP_REQUEST_TIMEOUT": "3",
        "MLFLOW_DISABLE_TELEMETRY": "true",
    }.items():
        os.environ[name] = value
    logging.getLogger("mlflow").setLevel(logging.ERROR)
    return Server()


@cache
def connection() -> Any:
    """A connection to the server, made while its answers are sound."""
    from sftlab.tracking.connection import Connection
    from sftlab.tracking.settings import TrackingSettings

    return Connection.connect(TrackingSettings(address=running().address), Path("/nowhere"))


def read_answers(data: bytes, _folder: Path) -> object:
    """The first line names the request that is answered with the rest; then that question is asked."""
    from sftlab.tracking.connection import Connection, refusals
    from sftlab.tracking.models import found_model, tags_of
    from sftlab.tracking.settings import TrackingSettings, probe

    server = running()
    with refusals(TrackingSettings(address=server.address), Path()):
        at = connection()
        path, _, server.answer = data.partition(b"\n")
        server.path = path.decode("utf-8", "replace")
        questions: dict[str, Callable[[], object]] = {
            "/health": lambda: probe(server.address),
            "/runs/search": lambda: [(run.info.run_id, run.data.tags) for run in at.search_runs("")],
            "/logged-models/search": lambda: [found_model(model) for model in at.search_models()],
            "/logged-models/m-1": lambda: tags_of(at.client, "m-1"),
            "/registered-models/alias": lambda: tags_of(at.client, "n@champion"),
        }
        connect = partial(Connection.connect, TrackingSettings(address=server.address), Path("/nowhere"))
        try:
            return questions.get(server.path, connect)()
        finally:
            server.path = ""


def _answer(draw: Random) -> bytes:
    path = draw.choice([*ANSWERS, "/runs/search", "/logged-models/search"])
    kind, value = draw.random(), ANSWERS[path]
    if isinstance(value, dict) and draw.random() < 0.1:
        value = {**value, "next_page_token": "x"}  # the same page without end
    if kind < 0.65:
        answer = answer_text(altered(value, draw))
    elif kind < 0.8:
        status = draw.choice(
            (
                b"404 Not Found",
                b"500 Oh",
                b"302 Found\r\nLocation: file:///etc/passwd",
                b"401 No",
                b"204 x",
                b"99 x",
            )
        )
        answer = http(
            json.dumps(
                {
                    "error_code": draw.choice(("RESOURCE_DOES_NOT_EXIST", "X", 5)),
                    "message": altered("m", draw),
                }
            ).encode(),
            status,
        )
    else:
        answer = mutated(
            answer_text(value), [b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nffffffff\r\n"], draw
        )
    return path.encode() + b"\n" + answer


def server_reader() -> Reader:
    from tests.fuzz.reader import Reader

    sound = [path.encode() + b"\n" + answer_text(value) for path, value in ANSWERS.items()]
    return Reader("MLflow answers", read_answers, sound, _answer)
