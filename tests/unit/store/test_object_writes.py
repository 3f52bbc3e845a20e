"""Objects are written wholly or not at all."""

from __future__ import annotations

import errno
import os
import signal
import time
from pathlib import Path
from typing import Any

import pytest
from pyarrow.fs import LocalFileSystem

from sftlab.store.objects import Address, Objects
from tests.support.refusals import refused


class SlowServer:
    """Files of a folder as objects; opening one takes a moment. All else is pyarrow's own file system."""

    def __init__(self) -> None:
        self.files = LocalFileSystem()

    def __getattr__(self, name: str) -> Any:
        return getattr(self.files, name)

    def open_output_stream(self, path: str) -> Any:
        stream = self.files.open_output_stream(path)
        time.sleep(0.4)
        return stream


@pytest.fixture
def slow(tmp_path: Path) -> Objects:
    """Objects of a slow server, which lie as files in `tmp_path / "here"`."""
    (tmp_path / "here").mkdir()
    address = Address("s3", str(tmp_path), "here")
    return Objects(address, SlowServer())


def test_an_object_is_written_wholly_where_a_signal_comes_in_the_middle(
    slow: Objects, tmp_path: Path
) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGALRM, interrupt)
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.1)
        with pytest.raises(KeyboardInterrupt):
            slow.write("record.json", b"all of it")
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert (tmp_path / "here" / "record.json").read_bytes() == b"all of it"


def test_an_upload_whose_file_cannot_be_read_to_its_end_leaves_no_object(
    slow: Objects, tmp_path: Path
) -> None:
    class Failing:
        """A file of a hundred bytes on a disk that fails after the first fifteen."""

        def stat(self) -> os.stat_result:
            return (tmp_path / "hundred").stat()

        def open(self, mode: str) -> Any:
            assert mode == "rb"
            return self

        def __enter__(self) -> Any:
            return self

        def __exit__(self, *_: object) -> None:
            return None

        def read(self, count: int) -> bytes:
            del count
            if self.read_once:
                raise OSError(errno.EIO, "Input/output error")
            self.read_once = True
            return b"the first bytes"

        read_once = False

    (tmp_path / "hundred").write_bytes(bytes(100))
    with refused("model cannot be written:.*Input/output error"):
        slow.upload(Failing(), "model")  # type: ignore[arg-type]
    assert list((tmp_path / "here").iterdir()) == []
