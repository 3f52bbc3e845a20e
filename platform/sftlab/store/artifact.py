"""Content-addressed results on a local or shared file system.

A step's folder is `ROOT/stage/slug-<first 12 hex digits of its id>/`. Its builder writes there directly and
may leave parts behind for a resume; `record.json`, written last, is the commit. Nothing relies on rename of
folders or on locks between machines.
"""

from __future__ import annotations

import fcntl
import json
import os
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any
from uuid import uuid4

from sftlab.errors import UserError
from sftlab.files import make_folder
from sftlab.store.fingerprint import canonical, file_hash, fingerprint
from sftlab.store.provenance import provenance

RECORD = "record.json"
WORK = "work"
PART = ".part"  # end of the names of unfinished files, which a killed run may leave behind


@dataclass(frozen=True)
class Step:
    """One result to be had: what it is made of, and thereby its id."""

    stage: str
    slug: str
    spec: Mapping[str, Any]
    inputs: Mapping[str, str] = field(default_factory=dict)
    revision: int = 1

    @cached_property
    def id(self) -> str:
        return fingerprint(self.stage, self.revision, self.spec, self.inputs)

    @property
    def lock(self) -> str:
        """Name of the lock (`Store.lock`) under which those build that share a store."""
        return f"{self.stage}-{self.id[:24]}"


@dataclass(frozen=True)
class Record:
    """What stands in `record.json`: a committed result."""

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


class Store:
    """Results below one root folder."""

    def __init__(self, root: Path) -> None:
        address = re.match(r"(\w+):/+", str(root))
        if address:
            named = f"{address[1]}://{str(root)[address.end() :]}"  # a Path holds one stroke of an address
            raise UserError(f"{named}: the store must be a folder (local or a shared mount), not an address.")
        self.root = root.resolve()
        there = next(place for place in (self.root, *self.root.parents) if place.exists())
        if not there.is_dir():
            raise UserError(f"{root}: cannot be the store, as {there} is a file; give a folder by --store.")

    def path(self, step: Step) -> Path:
        """The step's folder, whether it is committed or not."""
        return self.root / step.stage / f"{step.slug}-{step.id[:12]}"

    def work(self, step: Step) -> Path:
        """Folder for the unfinished parts of a step; made if missing, never part of the result."""
        folder = self.path(step) / WORK
        make_folder(folder)
        return folder

    def find(self, step: Step) -> Record | None:
        """The step's record, or None where it is not committed.

        Raises UserError where a committed file is missing or has another size than recorded.
        """
        folder = self.path(step)
        record = read_record(folder / RECORD)
        if record is None:
            return None
        if record.id != step.id:
            raise UserError(f"{folder}: holds the result {record.id}, not {step.id}; move the folder away.")
        for name, entry in record.files.items():
            try:
                size = (folder / name).stat().st_size
            except FileNotFoundError:
                size = -1
            if size != entry["bytes"]:
                raise UserError(
                    f"{folder / name}: has {max(size, 0):,} bytes where the record says {entry['bytes']:,}. "
                    f"Delete {folder} to compute it again."
                )
        return record

    def commit(self, step: Step) -> Record:
        """Record every file of the step's folder outside of `work/`, the record itself written last.

        Raises UserError where the step is committed already with other bytes.
        """
        folder = self.path(step)
        files = {
            path.relative_to(folder).as_posix(): {"bytes": path.stat().st_size, "sha256": file_hash(path)}
            for path in sorted(folder.rglob("*"))
            if path.is_file()
            and path.relative_to(folder).parts[0] not in (WORK, RECORD)
            and not path.name.endswith(PART)
        }
        old = read_record(folder / RECORD)
        if old is not None:
            if old.files != files:
                raise UserError(f"{folder}: was committed with other content; it will not be overwritten.")
            return old
        spec = canonical(step.spec)
        record = Record(
            step.id, step.stage, step.slug, spec, dict(step.inputs), step.revision, files, provenance()
        )
        write_text(folder / RECORD, json.dumps(record.__dict__, indent=1, ensure_ascii=False) + "\n")
        return record

    def records(self, stage: str) -> list[Record]:
        """All committed results of a stage."""
        found = [read_record(path) for path in sorted((self.root / stage).glob(f"*/{RECORD}"))]
        return [record for record in found if record is not None]

    @contextmanager
    def lock(self, *names: str) -> Iterator[None]:
        """Hold the named locks, so that of two builders of one result the second finds it made.

        Waits for whoever holds one; taken in sorted order, so that holders never wait in a circle. Reaches as
        far as the file system's `flock` does. Freed when the process ends.
        """
        folder = self.root / "locks"
        make_folder(folder)
        with ExitStack() as held:
            for name in sorted(set(names)):
                fcntl.flock(held.enter_context((folder / name).open("w")), fcntl.LOCK_EX)
            yield

    @contextmanager
    def try_lock(self, name: str) -> Iterator[bool]:
        """Hold one of the locks of `lock`, or say at once (False) that another holds it."""
        folder = self.root / "locks"
        make_folder(folder)
        with (folder / name).open("w") as held:
            try:
                fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                yield False
                return
            yield True

    @contextmanager
    def exclusive(self, waiting: Callable[[], None] | None = None) -> Iterator[None]:
        """Keep a second run on this machine from building in the same store; freed when the process ends.

        Where another builds here: calls `waiting` and waits, or raises UserError if it is None.
        """
        with self._locked(fcntl.LOCK_EX, waiting):
            yield

    @contextmanager
    def shared(self, waiting: Callable[[], None] | None = None) -> Iterator[None]:
        """Build beside others that do so too, each result under its `lock`; otherwise as `exclusive`."""
        with self._locked(fcntl.LOCK_SH, waiting):
            yield

    @contextmanager
    def _locked(self, kind: int, waiting: Callable[[], None] | None) -> Iterator[None]:
        make_folder(self.root)
        with (self.root / ".lock").open("w") as lock:
            try:
                fcntl.flock(lock, kind | fcntl.LOCK_NB)
            except BlockingIOError:
                if waiting is None:
                    raise UserError(
                        f"{self.root}: another run is building here; wait for it or stop it."
                    ) from None
                waiting()
                fcntl.flock(lock, kind)
            yield


def read_record(path: Path) -> Record | None:
    """A record, or None where there is none. Raises UserError where it is not one."""
    try:
        return Record(**json.loads(path.read_text(encoding="utf-8")))
    except FileNotFoundError:
        return None
    except (json.JSONDecodeError, TypeError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: is damaged ({error}); delete its folder to compute it again.") from error


def write_text(path: Path, text: str) -> None:
    """Write a file whole or not at all: to a temporary name, flushed to disk, then put in place.

    Several processes may write the same file at once; the last one stands.
    """
    make_folder(path.parent)
    part = path.with_name(f".{path.name}.{uuid4().hex}{PART}")
    try:
        with part.open("w", encoding="utf-8") as stream:
            stream.write(text)
            stream.flush()
            os.fsync(stream.fileno())
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


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
