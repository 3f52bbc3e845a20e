"""A secret in every place of the environment where one can be, and the search for them."""

from __future__ import annotations

import mmap
import zipfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq


def _planted(name: str) -> str:
    return f"planted-{name.lower().replace('_', '-')}-8f14e45fceea167a5a36dedd4bea2543"


_VALUES = (
    "AWS_ACCESS_KEY_ID",
    "AWS_SECRET_ACCESS_KEY",
    "AWS_SESSION_TOKEN",
    "HF_TOKEN",
    "MLFLOW_TRACKING_PASSWORD",
    "MLFLOW_TRACKING_TOKEN",
    "RAY_AUTH_TOKEN",
    "WANDB_API_KEY",
)
# Nothing listens there.
_ADDRESSES = ("PIP_EXTRA_INDEX_URL", "MLFLOW_TRACKING_URI", "HTTP_PROXY", "HTTPS_PROXY", "AWS_ENDPOINT_URL")

SECRETS = tuple(map(_planted, (*_VALUES, *_ADDRESSES)))
PLANTED = {
    **{name: _planted(name) for name in _VALUES},
    **{name: f"http://user:{_planted(name)}@127.0.0.1:9" for name in _ADDRESSES},
    "NO_PROXY": "localhost,127.0.0.0/8,10.0.0.0/8",  # what the tests talk to stands on this machine
}


def holders(folder: Path, secrets: Iterable[str]) -> list[str]:
    """The files below a folder in which one of the texts stands, as UTF-8 or UTF-16, compressed or not."""
    texts = [text.encode(kind) for text in secrets for kind in ("utf-8", "utf-16-le")]
    found = []
    for path in sorted(folder.rglob("*")):
        with suppress(FileNotFoundError):  # a running cluster deletes files, too
            if path.is_file() and path.stat().st_size and _holds(path, texts):
                found.append(str(path.relative_to(folder)))
    return found


def _holds(path: Path, texts: Sequence[bytes]) -> bool:
    """Whether a file holds one of the texts: as it lies there, as the members of an archive, as a table's values."""
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        if any(content.find(text) >= 0 for text in texts):
            return True
    return any(text in content for content in _unpacked(path) for text in texts)


def _unpacked(path: Path) -> Iterator[bytes]:
    """What a package that Ray sends, or a parquet file, holds compressed; not what lies in archives within it."""
    if path.suffix in (".zip", ".whl", ".jar") and zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            yield "\n".join(archive.namelist()).encode()
            yield from map(archive.read, archive.namelist())
    if path.suffix == ".parquet":
        table, plain = pq.read_table(path), pa.BufferOutputStream()
        with pa.ipc.new_stream(plain, table.schema) as stream:
            stream.write_table(table)
        yield plain.getvalue().to_pybytes()
