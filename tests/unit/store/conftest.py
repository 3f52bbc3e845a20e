"""One S3 server for the tests of stores in an object store, and the machines that use it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.object_machines import Machines
from tests.support.s3_server import S3Server, s3_server


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    with s3_server(tmp_path_factory.mktemp("s3")) as started:
        yield started


@pytest.fixture
def machines(server: S3Server, tmp_path: Path) -> Iterator[Machines]:
    yield Machines(server, tmp_path.name, tmp_path)
    server.order()
