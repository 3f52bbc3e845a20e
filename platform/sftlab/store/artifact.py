"""Content-addressed results in a folder (local or a shared mount) or in an object store.

A step's folder is `ROOT/stage/slug-<first 12 hex digits of its id>/`. Its builder writes there directly and
may leave parts behind for a resume; `record.json`, written last, is the commit. Nothing relies on rename of
folders. Where the results are, `backend` alone knows.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path

from sftlab.errors import UserError
from sftlab.files import make_folder, write_text
from sftlab.store.backend import DAMAGED, Backend
from sftlab.store.fingerprint import canonical
from sftlab.store.hashes import HASHES, FileHashes
from sftlab.store.hub import origin_of
from sftlab.store.local import Folder, payload
from sftlab.store.locks import Holder
from sftlab.store.mirror import default_mirrors, display_path, forget, make_mirror
from sftlab.store.objects import is_address, parse_address
from sftlab.store.provenance import provenance
from sftlab.store.record import (
    FOLDER_DIGITS,
    PART,
    RECORD,
    RELEASED,
    STEP_FOLDER,
    WORK,
    Damaged,
    Record,
    Step,
    belongs,
    differences,
    file_entry,
    quarantine_path,
    read_record,
)
from sftlab.store.remote import Bucket

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
]


class Store:
    """Results below one root folder, or below one address in an object store.

    `root` is the folder, or the mirror of the object store; `mirrors` is where mirrors are, if not in the usual
    place. Can be pickled. Raises UserError where the place cannot be a store.
    """

    def __init__(self, root: Path | str, mirrors: Path | None = None) -> None:
        self.backend: Backend
        if is_address(str(root)):
            mirror = make_mirror(parse_address(str(root)), mirrors or default_mirrors())
            mirror.objects.require()
            self.backend = Bucket(mirror)
        else:
            self.backend = Folder(Path(root).resolve())
        there = next(place for place in (self.root, *self.root.parents) if place.exists())
        if not there.is_dir():
            raise UserError(
                f"cannot be the store, as {there} is a file", place=root, advice="give a folder by --store."
            )

    @property
    def root(self) -> Path:
        return self.backend.root

    def __str__(self) -> str:
        """What a person calls the store: its address or its folder."""
        return str(self.backend)

    def path(self, step: Step) -> Path:
        """The step's folder, whether it is committed or not. In a mirror, `pull` it before reading.

        Of a step with `any_slug` it is the one that is there for its id, looked for under the step's slug first.
        """
        return self.root / step.stage / (self.backend.label(step) if step.any_slug else step.folder)

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
        folder = self.path(step)
        record = self.backend.record(folder)
        if record is None:
            return None
        if record.id != step.id:
            if record.step.id != record.id:
                raise Damaged(folder, f"{RECORD} does not belong to its id")
            raise UserError(
                f"holds the result {record.id}, not {step.id}", place=folder, advice="move the folder away."
            )
        return record

    def commit(self, step: Step, varying: Collection[str] = ()) -> Record:
        """Record every file of the step's folder outside of `work/`, the record itself written last.

        To an object store the files are sent first, but for those that workers have pushed. Raises UserError
        where the step is committed already with other bytes. But of an object store, where two may build at once, the
        first record is kept whatever its `varying` files contain: names of those that record how long a build took.
        """
        folder = self.path(step)
        files = payload(folder)
        old = self.backend.already(folder, files, varying)
        if old is not None:
            return old
        files, sent = self.backend.payload(folder, files)
        spec, inputs, slug = canonical(step.spec), dict(step.inputs), folder.name.rpartition("-")[0]
        made = provenance() | self._origins(inputs)
        record = Record(step.id, step.stage, slug, spec, inputs, step.revision, files, made)
        if not self.backend.commit(folder, record, sent):
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
        record = self.find(step)
        if what is None and thoroughly and record is not None and record.released:
            self.recall(step)
            return f"{step.stage}/{step.folder} was deleted to save space; built again"
        if what is None and thoroughly:
            try:
                self._verify_one(self.path(step))
            except Damaged as damaged:
                what = damaged.what
        return None if what is None else self._move_away(self.path(step), what)

    def spare_files(self, step: Step, remains: Collection[str]) -> list[str]:
        """The files that `release` would delete of a committed result, also those that a killed call left."""
        record, folder = self.find(step), self.path(step)
        if record is None:
            return []
        if not record.released:
            return [name for name in record.files if name not in remains]
        return [name for name in json.loads((folder / RELEASED).read_text()) if (folder / name).exists()]

    def release(self, step: Step, remains: Collection[str]) -> int:
        """Delete the files of a committed result but for those that remain; returns how many bytes were freed.

        The result stays committed, as `Record.released`, with the sizes and hashes of what was deleted in `RELEASED`.
        Only in a folder, and for one who holds the store or the step's lock. After a kill it is called again.
        """
        record, folder = self.find(step), self.path(step)
        if record is None:
            return 0
        if not record.released:
            gone = {name: entry for name, entry in record.files.items() if name not in remains}
            write_text(folder / RELEASED, json.dumps(gone, indent=1) + "\n")
            kept = {name: entry for name, entry in record.files.items() if name in remains}
            files = kept | {RELEASED: file_entry(folder / RELEASED)}
            write_text(folder / RECORD, replace(record, files=files).text)
            forget(folder)
        names = self.spare_files(step, remains)
        freed = sum((folder / name).stat().st_size for name in names)
        for name in names:
            (folder / name).unlink()
        return freed

    def recall(self, step: Step) -> None:
        """Delete what is left of a released result, so that it is built again."""
        folder = self.path(step)
        left = folder.with_name(f".{folder.name}.released")
        shutil.rmtree(left, ignore_errors=True)  # of one that was killed
        folder.rename(left)
        shutil.rmtree(left)
        forget(folder)

    def _move_away(self, folder: Path, what: str) -> str:
        to = f"{DAMAGED}/{quarantine_path(folder)}"
        self.backend.quarantine(folder, to)
        place = display_path(self.root / to)
        return (
            f"{folder.parent.name}/{folder.name} is damaged ({what}); set aside as {place}, to be built again"
        )

    def stages(self) -> list[str]:
        """Names of the folders below the root in which results may be."""
        return self.backend.stages()

    def records(self, stage: str, digits: str = "", slug: str | None = None) -> list[Record]:
        """All committed results of a stage whose ids begin with these digits, of this slug if one is given.

        Damaged records are left out.
        """
        named = [
            name
            for name in sorted(self.backend.names(stage))
            if STEP_FOLDER.fullmatch(name)
            and name.rpartition("-")[2].startswith(digits[:FOLDER_DIGITS])
            and slug in (None, name.rpartition("-")[0])
        ]
        found = self.backend.records([self.root / stage / name for name in named])
        return [record for record in found if record.id.startswith(digits)]

    def is_committed(self, step: Step) -> bool:
        """Whether a step has a record, from the listing of its stage (see `listed`); sizes are not looked at."""
        return self.backend.is_committed(self.path(step))

    @contextmanager
    def listed(self, *stages: str, names_only: bool = False) -> Iterator[None]:
        """Within the context one listing of each of these stages, made now, decides what is committed.

        Asking for every step by itself would take an object store minutes for a sweep of thousands. Records are
        fetched along, many at a time; `names_only` is for those who ask `is_committed` alone.
        """
        with self.backend.listed(stages, names_only):
            yield

    def is_begun(self, step: Step) -> bool:
        """Whether parts of an unfinished step are here."""
        return self.backend.is_begun(self.path(step))

    def verify(self, report: Callable[[str], None], keep: bool = False) -> int:
        """Read every committed file and compare its hash; damaged results are quarantined and reported.

        Forgets the remembered hashes of files outside the store. Returns the number of sound results. Only for one who
        holds the store (`exclusive`), or for one who may not write there: `keep` leaves damaged results where they are.
        """
        FileHashes(self.root / HASHES).forget()
        sound = 0
        for stage in self.stages():
            for name in sorted(self.backend.names(stage)):
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
        record = self.backend.record_now(folder)
        if record is None:
            return False
        if record.step.id != record.id or not belongs(folder.name, record.id):
            raise Damaged(folder, f"{RECORD} does not belong to its id")
        wrong = self.backend.wrong_file(folder, record)
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
        with ExitStack() as held:
            for name in sorted(set(names)):
                held.enter_context(self.backend.locks.hold(name))
            yield

    @contextmanager
    def try_lock(self, name: str) -> Iterator[bool]:
        """Hold one of the locks of `lock`, or say at once (False) that another holds it."""
        with self.backend.locks.try_hold(name) as got:
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
        with self.backend.locks.hold_whole(shared, waiting, busy):
            yield

    def holders(self) -> list[Holder]:
        """Who builds in the store now. Takes no lock, so that it disturbs nobody."""
        return self.backend.locks.holders()
