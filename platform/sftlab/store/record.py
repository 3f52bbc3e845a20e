"""What a result is made of, and the record that commits it."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import Any
from uuid import uuid4

from sftlab.errors import UserError
from sftlab.store.fingerprint import canonical, file_hash, fingerprint

RECORD = "record.json"
WORK = "work"
RELEASED = "released.json"  # in a result whose other files were deleted to save space: their sizes and hashes
PART = ".part"  # end of the names of unfinished files, which a killed run may leave behind
FOLDER_DIGITS = 12  # of an id, in the name of a result's folder
STEP_FOLDER = re.compile(rf".+-[0-9a-f]{{{FOLDER_DIGITS}}}")
LONGEST_NAME = 255  # bytes, of a path within the folder; what Linux takes of one part of it

_HEX = re.compile(r"[0-9a-f]{64}")


class Damaged(UserError):
    """A committed result whose bytes differ from its record; `folder` is the result's."""

    def __init__(self, folder: Path, what: str) -> None:
        super().__init__(
            f"the result is damaged ({what})",
            place=folder,
            advice="`sftlab run` and `sftlab sweep` quarantine it and build it again; so does `sftlab verify`, which "
            "looks at all results.",
        )
        self.folder, self.what = folder, what

    def __reduce__(self) -> tuple[type[Damaged], tuple[Path, str]]:
        return Damaged, (self.folder, self.what)


@dataclass(frozen=True)
class Step:
    """One result to be had: what it is made of, and thereby its id.

    The slug is a label, for people, and no part of the id. Where one id may have been labelled by different names, the
    slug is that of its stage, and its result is found under whichever label it has (`Store.path`).
    """

    stage: str
    slug: str
    spec: Mapping[str, Any]
    inputs: Mapping[str, str] = field(default_factory=dict)
    revision: int = 1

    @cached_property
    def id(self) -> str:
        return fingerprint(self.stage, self.revision, self.spec, self.inputs)

    @property
    def folder(self) -> str:
        """Name of its folder, below that of its stage."""
        return f"{self.slug}-{self.id[:FOLDER_DIGITS]}"

    @property
    def any_slug(self) -> bool:
        """Whether the result may have another label than this step's."""
        return self.slug == self.stage

    @property
    def lock(self) -> str:
        """Name of the lock (`Store.lock`) under which those build that share a store."""
        return f"{self.stage}-{self.id[:24]}"


@dataclass(frozen=True)
class Record:
    """The content of `record.json`: a committed result."""

    id: str
    stage: str
    slug: str
    spec: dict[str, Any]
    inputs: dict[str, str]
    revision: int
    files: dict[str, dict[str, Any]]
    provenance: dict[str, str]

    @property
    def bytes(self) -> int:
        return sum(int(entry["bytes"]) for entry in self.files.values())

    @property
    def released(self) -> bool:
        """Whether files of the result were deleted to save space (`Store.release`)."""
        return RELEASED in self.files

    @property
    def step(self) -> Step:
        """The step that this is the result of."""
        return Step(self.stage, self.slug, self.spec, self.inputs, self.revision)

    @property
    def text(self) -> str:
        """What is written."""
        return json.dumps(self.__dict__, indent=1, ensure_ascii=False) + "\n"


def parse_record(content: bytes, path: Path) -> Record:
    """The record that these bytes of `path` are. Raises Damaged where they are none."""
    try:
        record = Record(**json.loads(content))
        _check(record)
    except (ValueError, TypeError, AttributeError, RecursionError) as error:
        raise Damaged(path.parent, f"{path.name} is unreadable: {error}") from error
    return record


def read_record(path: Path) -> Record | None:
    """A record, or None where there is none. Raises Damaged where it is not one."""
    try:
        return parse_record(path.read_bytes(), path)
    except FileNotFoundError:
        return None


def _check(record: Record) -> None:
    """Raises ValueError where a field is not what it must be, or where a file is outside the folder."""
    if not all(isinstance(value, str) for value in (record.id, record.stage, record.slug)):
        raise ValueError("id, stage and slug must be texts")
    if any(
        not text or "/" in text or "\0" in text or text in (".", "..") for text in (record.stage, record.slug)
    ):
        raise ValueError("stage or slug is no name of a folder")
    if not _HEX.fullmatch(record.id) or type(record.revision) is not int:
        raise ValueError("id or revision is none")
    for name in ("spec", "inputs", "files", "provenance"):
        if not isinstance(getattr(record, name), dict):
            raise ValueError(f"{name} is no mapping")
    if not all(isinstance(value, str) for value in [*record.inputs.values(), *record.provenance.values()]):
        raise ValueError("inputs and provenance must be texts")
    for name, entry in record.files.items():
        check_file(name, entry)


def check_file(name: str, entry: Mapping[str, Any]) -> None:
    """Raises ValueError, TypeError or AttributeError where this is no file of a result with its bytes and sha256."""
    path = PurePosixPath(name)
    if not name or "\0" in name or path.is_absolute() or ".." in path.parts or str(path) != name:
        raise ValueError(f"files: {name!r} is no path within the folder")
    if len(name.encode()) > LONGEST_NAME:
        raise ValueError("files: a name is too long")
    size = entry.get("bytes")
    if type(size) is not int or size < 0 or not _HEX.fullmatch(entry.get("sha256") or ""):
        raise ValueError(f"files: {name!r} lacks its bytes or its sha256")


def file_entry(path: Path) -> dict[str, Any]:
    """What a record or a note says about a file: its bytes and SHA-256. Raises OSError where it cannot be read."""
    return {"bytes": path.stat().st_size, "sha256": file_hash(path)}


def belongs(folder: str, id: str) -> bool:
    """Whether the name of a result's folder has the digits of this id, whatever its slug."""
    return STEP_FOLDER.fullmatch(folder) is not None and folder.endswith(f"-{id[:FOLDER_DIGITS]}")


def labelled(step: Step, names: Iterable[str], is_committed: Callable[[str], bool]) -> str:
    """Which of the folders of a stage is a step's, whatever its slug: a committed one before one that is begun.

    Of several the one with the step's slug, then the first in order; of none the step's.
    """
    there = sorted(
        (name for name in names if belongs(name, step.id)), key=lambda name: (name != step.folder, name)
    )
    return next((name for name in there if is_committed(name)), there[0] if there else step.folder)


def quarantine_path(path: Path) -> str:
    """Where below `damaged/` a result's folder or a piece's file is quarantined now; never the same place twice."""
    return f"{datetime.now(UTC):%Y%m%dT%H%M%SZ}-{uuid4().hex[:4]}/{path.parent.name}/{path.name}"


def is_draft(path: Path) -> bool:
    """Whether a path within a result is, or is in, an unfinished piece that a killed run left.

    Their names begin with a dot or end with `PART`.
    """
    return path.name.endswith(PART) or any(part.startswith(".") for part in path.parts)


def differences(spec: Mapping[str, Any], inputs: Mapping[str, str], record: Record) -> list[str]:
    """What separates a wanted step from a committed one, as `field: there -> here` texts."""
    here = _leaves({"spec": canonical(spec), "input": dict(inputs)})
    there = _leaves({"spec": record.spec, "input": record.inputs})
    return [
        f"{key.removeprefix('spec.')}: {_shown(there.get(key))} -> {_shown(here.get(key))}"
        for key in sorted(here.keys() | there.keys())
        if here.get(key) != there.get(key)
    ]


def _leaves(value: Any, prefix: str = "") -> dict[str, Any]:
    if not isinstance(value, Mapping):
        return {prefix: value}
    found: dict[str, Any] = {}
    for key, item in value.items():
        found |= _leaves(item, f"{prefix}.{key}" if prefix else key)
    return found


def _shown(value: Any) -> str:
    text = "unset" if value is None else str(value)
    return text if len(text) <= 24 else f"{text[:12]}..."
