"""Relative paths: one in a file is relative to the folder of that file, one in an option to the current folder."""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

_FILES = (".csv", ".gz", ".json", ".jsonl", ".ndjson", ".parquet", ".yaml", ".yml", ".zip")
_HUB_ID = re.compile(r"(?!\.)[A-Za-z0-9][\w.-]{0,95}/[\w.-]{1,96}(@[\w./-]{1,255})?(:[\w./ -]{1,255})?")


def is_hub_id(text: str) -> bool:
    """Whether a text has the form `org/name`, `org/name@revision` or `org/name:file` of what a hub has.

    >>> [is_hub_id(text) for text in ("org/name", "org/name@v1.0", "o/n:a/b.json", "a/b/c", "./b", "../b", "/b", "n")]
    [True, True, True, False, False, False, False, False]
    """
    name = text.partition(":")[0].partition("@")[0].rpartition("/")[2]
    return (
        _HUB_ID.fullmatch(text) is not None and name != "." and ".." not in text and not name.endswith(_FILES)
    )


def may_be_hub_id(text: str, folder: Path) -> bool:
    """Whether a text that is no path in `folder` stands for something on a hub.

    Where the folder has the first part, as `models/` of `models/bse`, a wrong path is meant, unless a revision is
    named.
    """
    return is_hub_id(text) and ("@" in text or not _exists(folder / text.partition("/")[0]))


def anchor(document: dict[str, Any], keys: Sequence[str], file: Path) -> None:
    """Makes the relative paths in a file's document relative to the current folder, in place.

    keys: where they are, such as `data.files.*.source`; `*` stands for every key of a mapping. What has another form
    than expected is left to the checks of the document.
    """
    for key in keys:
        *parents, last = key.split(".")
        places: list[tuple[str, Any]] = [("", document)]
        for parent in parents:
            places = [
                (f"{name}{inner}.", held[inner])
                for name, held in places
                if isinstance(held, Mapping)
                for inner in (held if parent == "*" else [parent] if parent in held else [])
            ]
        for name, held in places:
            if isinstance(held, dict) and isinstance(held.get(last), str):
                held[last] = anchored(held[last], file, f"{name}{last}")


def anchored(text: str, file: Path, field: str) -> str:
    """A path that a file has in a field, as seen from the current folder.

    Addresses and absolute paths stay as they are, and so do ids of a hub that are no path. A path that exists in the
    current folder and not in the file's is taken with a warning: this is how earlier versions read it.
    """
    if not text or "://" in text:
        return text
    path = Path(os.path.expanduser(text))  # noqa: PTH111 (leaves an unknown user's home as it is)
    if path.is_absolute():
        return str(path)
    beside = _without_dots(file.parent / path)
    if _exists(beside):
        return str(beside)
    if _exists(path):
        written = os.path.relpath(path, file.parent)
        logging.getLogger(__name__).warning(
            f"{file}: {field} = {text}: paths are relative to the folder of the file, where there is none; that of the "
            f"current folder is taken. Write {written}."
        )
        return text
    return text if may_be_hub_id(text, file.parent) and may_be_hub_id(text, Path()) else str(beside)


def _without_dots(path: Path) -> Path:
    """The path without `x/..`, where this leads to the same place: x may be a link."""
    short = Path(os.path.normpath(path))
    try:
        return short if short.resolve() == path.resolve() else path
    except (OSError, ValueError, RuntimeError):  # no path at all, or a circle of links
        return path


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except (OSError, ValueError):
        return False
