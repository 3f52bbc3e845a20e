"""Content-addressed results in a folder (local or a shared mount) or in an object store.

A step's folder is `ROOT/stage/slug-<first 12 hex digits of its id>/`. Its builder writes there directly and
may leave parts behind for a resume; `record.json`, written last, is the commit. Nothing relies on rename of
folders. Of an object store the same layout is in a mirror on this machine (see `mirror`), into which files come
when they are read.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sftlab.errors import UserError
from sftlab.files import make_folder, write_text
from sftlab.store import local, remote
from sftlab.store.fingerprint import canonical
from sftlab.store.hashes import HASHES, FileHashes
from sftlab.store.hub import origin_of
from sftlab.store.locks import Holder, Locks
from sftlab.store.mirror import Mirror, default_mirrors, display_path, is_committed, make_mirror
from sftlab.store.objects import is_address, parse_address
from sftlab.store.provenance import provenance
from sftlab.store.record import (
    FOLDER_DIGITS,
    PART,
    RECORD,
    STEP_FOLDER,
    WORK,
    Damaged,
    Record,
    Step,
    belongs,
    differences,
    labelled,
    quarantine_path,
    read_record,
)

__all__ = [
    "DAMAGED",
    "PART",
    "RECORD",
    "WORK",
    "Damaged",
    "Record",
    "Step",
    "Store",
    "differences",
    "read_record",
    "write_text",
]

DAMAGED = "damaged"  # the folder of quarantined results


class Store:
    """Results below one root folder, or below one address in an object store.

    `root` is the folder, or the mirror of the object store; `mirrors` is where mirrors are, if not in the usual
    place. Can be pickled. Raises UserError where the place cannot be a store.
    """

    def __init__(self, root: Path | str, mirrors: Path | None = None) -> None:
        self.mirror: Mirror | None = None
        self._forget_listings()
        if is_address(str(root)):
            self.mirror = make_mirror(parse_address(str(root)), mirrors or default_mirrors())
            self.mirror.objects.require()
            self.root = self.mirror.root
        else:
            self.root = Path(root).resolve()
        there = next(place for place in (self.root, *self.root.parents) if place.exists())
        if not there.is_dir():
            raise UserError(
                f"cannot be the store, as {there} is a file", place=root, advice="give a folder by --store."
            )

    def __getstate__(self) -> dict[str, Any]:
        return {"mirror": self.mirror, "root": self.root}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.mirror, self.root = state["mirror"], state["root"]
        self._forget_listings()

    def _forget_listings(self) -> None:
        self._found: dict[str, Record] = {}  # results stay, so that a known one need not be asked for again
        self._names: dict[str, set[str]] = {}
        self._listings: dict[str, remote.Listing] = {}
        self._labels: dict[str, str] = {}  # by id: folders in an object store of steps with any slug

    def __str__(self) -> str:
        """What a person calls the store: its address or its folder."""
        return str(self.root if self.mirror is None else self.mirror.address)

    def path(self, step: Step) -> Path:
        """The step's folder, whether it is committed or not. In a mirror, `pull` it before reading.

        Of a step with `any_slug` it is the one that is there for its id, looked for under the step's slug first.
        """
        return self.root / step.stage / (self._labelled(step) if step.any_slug else step.folder)

    def _labelled(self, step: Step) -> str:
        place, found = self.root / step.stage, self._labels.get(step.id, step.folder)
        if step.id not in self._labels and not self._has_record(place / found):
            found = labelled(step, self._folders(step.stage), lambda name: self._has_record(place / name))
        if self.mirror is not None:
            self._labels[step.id] = found
        return found

    def _has_record(self, folder: Path) -> bool:
        if self.mirror is None:
            return (folder / RECORD).exists()
        listing = self._listings.get(folder.parent.name)
        return (
            is_committed(self.mirror, folder) if listing is None else RECORD in listing.get(folder.name, {})
        )

    def work(self, step: Step) -> Path:
        """Folder for the unfinished parts of a step; made if missing, never part of the result."""
        folder = self.path(step) / WORK
        make_folder(folder)
        return folder

    def find(self, step: Step) -> Record | None:
        """The step's record; None where it is not committed, or damaged according to its sizes (see `damage`)."""
        try:
            return self._sound(step)
        except Damaged:
            return None

    def damage(self, step: Step) -> str | None:
        """What is wrong with a committed step: its record, a missing file, a wrong size; else None."""
        try:
            self._sound(step)
        except Damaged as damaged:
            return damaged.what
        return None

    def _sound(self, step: Step) -> Record | None:
        if step.id in self._found:
            return self._found[step.id]
        folder = self.path(step)
        if self.mirror is None:
            record = local.sound_record(folder)
        elif step.stage in self._listings:
            there = self._listings[step.stage].get(folder.name, {})
            record = remote.sound_record(self.mirror, folder, there)
        else:
            record = remote.sound_record(self.mirror, folder, remote.list_folder(self.mirror, folder))
        if record is None:
            return None
        if record.id != step.id:
            if record.step.id != record.id:
                raise Damaged(folder, f"{RECORD} does not belong to its id")
            raise UserError(
                f"holds the result {record.id}, not {step.id}", place=folder, advice="move the folder away."
            )
        if self.mirror is not None:
            self._found[step.id] = record
        return record

    def commit(self, step: Step, varying: Collection[str] = ()) -> Record:
        """Record every file of the step's folder outside of `work/`, the record itself written last.

        To an object store the files are sent first, but for those that workers have pushed. Raises UserError
        where the step is committed already with other bytes. But of an object store, where two may build at once, the
        first record is kept whatever its `varying` files contain: names of those that record how long a build took.
        """
        folder = self.path(step)
        files, sent = local.payload(folder), local.Files()
        if self.mirror is None:
            old = read_record(folder / RECORD)
        else:
            old = remote.sound_record(self.mirror, folder, remote.list_folder(self.mirror, folder))
            if old is None:
                files, sent = remote.payload(self.mirror, folder, files)
        if old is not None:
            known = old.files
            if self.mirror is not None:
                files = {name: entry for name, entry in files.items() if name not in varying}
                # Only what this builder knows of: another's workers may have sent the rest.
                known = {name: entry for name, entry in old.files.items() if name in files}
            if known != files:
                raise UserError(
                    "was committed with other content", place=folder, advice="it will not be overwritten."
                )
            return old
        spec, inputs, slug = canonical(step.spec), dict(step.inputs), folder.name.rpartition("-")[0]
        made = provenance() | self._origins(inputs)
        record = Record(step.id, step.stage, slug, spec, inputs, step.revision, files, made)
        if self.mirror is None:
            local.flush(folder, files)
            write_text(folder / RECORD, record.text)
        elif not remote.commit(self.mirror, folder, record, sent):
            return self.commit(step, varying)  # another has done so meanwhile: this compares
        return record

    def _origins(self, inputs: Mapping[str, str]) -> dict[str, str]:
        """Of inputs that were seen in the cache of a hub: `org/name@commit`."""
        places = FileHashes(self.root / HASHES).folders
        seen = {key: origin_of(Path(places[value])) for key, value in inputs.items() if value in places}
        return {f"{key} from hub": origin for key, origin in seen.items() if origin is not None}

    def quarantine(self, step: Step, thoroughly: bool = False) -> str | None:
        """Move a damaged result away, so that it can be built again; returns a line that reports it.

        Does nothing (None) where `damage` finds none, nor, `thoroughly`, the reading of all its files. What is
        quarantined is never deleted. Only for a builder that holds the step's lock.
        """
        what = self.damage(step)
        if what is None and thoroughly:
            try:
                self._verify_one(self.path(step))
            except Damaged as damaged:
                what = damaged.what
        return None if what is None else self._move_away(self.path(step), what)

    def _move_away(self, folder: Path, what: str) -> str:
        to = f"{DAMAGED}/{quarantine_path(folder)}"
        if self.mirror is None:
            local.quarantine(folder, self.root / to)
        else:
            remote.quarantine(self.mirror, folder, to)
        self._forget_listings()
        place = display_path(self.root / to)
        return (
            f"{folder.parent.name}/{folder.name} is damaged ({what}); set aside as {place}, to be built again"
        )

    def stages(self) -> list[str]:
        """Names of the folders below the root in which results may be."""
        if self.mirror is not None:
            return sorted(self.mirror.objects.children() - {DAMAGED, remote.LOCKS})
        return sorted(path.name for path in self.root.glob("*") if path.is_dir() and path.name != DAMAGED)

    def records(self, stage: str, digits: str = "", slug: str | None = None) -> list[Record]:
        """All committed results of a stage whose ids begin with these digits, of this slug if one is given.

        Damaged records are left out.
        """
        named = [
            name
            for name in sorted(self._folders(stage))
            if STEP_FOLDER.fullmatch(name)
            and name.rpartition("-")[2].startswith(digits[:FOLDER_DIGITS])
            and slug in (None, name.rpartition("-")[0])
        ]
        folders = [self.root / stage / name for name in named]
        found = local.records_of(folders) if self.mirror is None else remote.records_of(self.mirror, folders)
        return [record for record in found if record.id.startswith(digits)]

    def is_committed(self, step: Step) -> bool:
        """Whether a step has a record, from the listing of its stage (see `listed`); sizes are not looked at."""
        folder = self.path(step)
        if self.mirror is None:
            return folder.name in self._folders(step.stage) and (folder / RECORD).exists()
        if step.stage in self._listings:
            return RECORD in self._listings[step.stage].get(folder.name, {})
        return self.find(step) is not None

    @contextmanager
    def listed(self, *stages: str, names_only: bool = False) -> Iterator[None]:
        """Within the context one listing of each of these stages, made now, decides what is committed.

        Asking for every step by itself would take an object store minutes for a sweep of thousands. Records are
        fetched along, many at a time; `names_only` is for those who ask `is_committed` alone.
        """
        if self.mirror is None:
            self._names = {stage: self._folders(stage) for stage in stages}
        else:
            self._listings = {stage: remote.list_stage(self.mirror, stage) for stage in stages}
            for stage, found in self._listings.items() if not names_only else ():
                committed = [self.root / stage / name for name in found if RECORD in found[name]]
                remote.records_of(self.mirror, committed)
        try:
            yield
        finally:
            self._names, self._listings = {}, {}

    def _folders(self, stage: str) -> set[str]:
        """Names in a stage's folder; of an object store only of results that are begun."""
        if self.mirror is not None:
            there = self._listings.get(stage)
            return self.mirror.objects.children(stage) if there is None else set(there)
        if stage in self._names:
            return self._names[stage]
        try:
            with os.scandir(self.root / stage) as entries:
                return {entry.name for entry in entries}
        except (FileNotFoundError, NotADirectoryError):
            return set()

    def is_begun(self, step: Step) -> bool:
        """Whether parts of an unfinished step are here."""
        folder = self.path(step)
        if self.mirror is None:
            return folder.is_dir() and any(folder.iterdir())
        listing = self._listings.get(step.stage)
        return bool(remote.list_folder(self.mirror, folder) if listing is None else listing.get(folder.name))

    def verify(self, report: Callable[[str], None], keep: bool = False) -> int:
        """Read every committed file and compare its hash; damaged results are quarantined and reported.

        Forgets the remembered hashes of files outside the store. Returns the number of sound results. Only for one who
        holds the store (`exclusive`), or for one who may not write there: `keep` leaves damaged results where they are.
        """
        FileHashes(self.root / HASHES).forget()
        sound = 0
        for stage in self.stages():
            for name in sorted(self._folders(stage)):
                folder = self.root / stage / name
                if not STEP_FOLDER.fullmatch(name):
                    continue
                try:
                    sound += self._verify_one(folder)
                except Damaged as damaged:
                    kept = f"{stage}/{name} is damaged ({damaged.what})"
                    report(kept if keep else self._move_away(folder, damaged.what))
        return sound

    def _verify_one(self, folder: Path) -> bool:
        """Whether a folder holds a sound result; False for an unfinished one. Raises Damaged."""
        if self.mirror is None:
            record = local.sound_record(folder)
        else:
            record = remote.sound_record(self.mirror, folder, remote.list_folder(self.mirror, folder))
        if record is None:
            return False
        if record.step.id != record.id or not belongs(folder.name, record.id):
            raise Damaged(folder, f"{RECORD} does not belong to its id")
        if self.mirror is None:
            wrong = local.wrong_file(folder, record)
        else:
            wrong = remote.wrong_file(self.mirror, folder, record)
        if wrong is not None:
            raise Damaged(folder, f"{wrong} has other bytes than recorded")
        return True

    @contextmanager
    def lock(self, *names: str) -> Iterator[None]:
        """Hold the named locks, so that of two builders of one result the second finds it made.

        Waits for whoever holds one; taken in sorted order, so that holders never wait in a circle. In a folder
        it reaches as far as the file system's `flock` does, and is freed when the process ends; in an object store
        (`leases`) as far as the store, and is freed some seconds later.
        """
        with self._locks.hold(names):
            yield

    @contextmanager
    def try_lock(self, name: str) -> Iterator[bool]:
        """Hold one of the locks of `lock`, or say at once (False) that another holds it."""
        with self._locks.try_hold(name) as got:
            yield got

    @contextmanager
    def exclusive(self, waiting: Callable[[], None] | None = None) -> Iterator[None]:
        """Keep a second run from building in the same store; reaches as far as `lock` does.

        Where another builds here: calls `waiting` and waits, or raises UserError if it is None.
        """
        with self._locked(False, waiting):
            yield

    @contextmanager
    def shared(self, waiting: Callable[[], None] | None = None) -> Iterator[None]:
        """Build concurrently with others, each result under its `lock`; otherwise as `exclusive`."""
        with self._locked(True, waiting):
            yield

    @contextmanager
    def _locked(self, shared: bool, waiting: Callable[[], None] | None) -> Iterator[None]:
        busy = UserError(
            "another run is building here",
            place=self,
            advice="wait for it or stop it. `sftlab status` names its process.",
        )
        with self._locks.hold_whole(shared, waiting, busy):
            yield

    def holders(self) -> list[Holder]:
        """Who builds in the store now. Takes no lock, so that it disturbs nobody."""
        return self._locks.holders()

    @property
    def _locks(self) -> Locks:
        return Locks(self.root, self.mirror)
