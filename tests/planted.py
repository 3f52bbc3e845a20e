"""A secret in every place of the environment where one can be, and the search for them."""

from __future__ import annotations

import mmap
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path


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
_ADDRESSES = ("PIP_EXTRA_INDEX_URL", "MLFLOW_TRACKING_URI")  # nothing listens there

SECRETS = tuple(map(_planted, (*_VALUES, *_ADDRESSES)))
PLANTED = {name: _planted(name) for name in _VALUES} | {
    name: f"http://user:{_planted(name)}@127.0.0.1:9" for name in _ADDRESSES
}


def holders(folder: Path, secrets: Iterable[str]) -> list[str]:
    """The files below a folder in which one of the texts stands, as UTF-8 or UTF-16."""
    texts = [text.encode(kind) for text in secrets for kind in ("utf-8", "utf-16-le")]
    found = []
    for path in sorted(folder.rglob("*")):
        with suppress(FileNotFoundError):  # a running cluster deletes files, too
            if path.is_file() and path.stat().st_size:
                with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
                    found += [str(path.relative_to(folder)) for text in texts if content.find(text) >= 0]
    return found
