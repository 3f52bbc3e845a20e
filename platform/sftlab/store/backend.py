"""What a store asks of the place where its results are."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, Protocol

from sftlab.errors import UserError
from sftlab.store.locks import Locks
from sftlab.store.record import Record, Step

DAMAGED = "damaged"  # the folder of quarantined results
Files = dict[str, dict[str, Any]]
"""Bytes and sha256 by path within a result's folder."""


class Backend(Protocol):
    """A folder (`local.Folder`) or an object store (`remote.Bucket`). Can be pickled.

    Builders and readers use files below `root` in both. Folders of results are named by their paths there, whatever
    of them is on this machine. Methods raise UserError where the place refuses or does not answer.
    """

    @property
    def root(self) -> Path:
        """The folder in which files are read and written on this machine."""

    @property
    def locks(self) -> Locks:
        """The locks of the store."""

    @property
    def reads_only(self) -> bool:
        """Whether it is known that this user may not write there."""

    def __str__(self) -> str:
        """What a person calls the place: its folder or its address."""

    def stages(self) -> list[str]:
        """Names of the folders in which results may be, sorted."""

    def names(self, stage: str) -> Collection[str]:
        """Names of the folders of a stage, of results and of begun ones."""

    def label(self, step: Step) -> str:
        """Name of a step's folder, whatever its slug: that of its result, of its parts, or what it is to be."""

    def listed(self, stages: Collection[str], names_only: bool) -> AbstractContextManager[None]:
        """Within the context one listing of these stages, made now, answers what follows.

        names_only: no record is going to be asked for.
        """

    def is_committed(self, folder: Path) -> bool:
        """Whether a result has a record."""

    def is_begun(self, folder: Path) -> bool:
        """Whether anything of a result is there."""

    def record(self, folder: Path) -> Record | None:
        """The record of a result; None where it is not committed. One that was found before may be remembered.

        Raises Damaged where the record is none, or a file is missing or has another size.
        """

    def record_now(self, folder: Path) -> Record | None:
        """`record`, as it is now."""

    def records(self, folders: Iterable[Path]) -> list[Record]:
        """Records of committed results; those that are none are left out."""

    def wrong_file(self, folder: Path, record: Record) -> str | None:
        """The first file of a result whose bytes are not those recorded; reads all of them."""

    def already(self, folder: Path, files: Files, varying: Collection[str]) -> Record | None:
        """The record of a result that is committed already; None where it is not.

        Raises UserError where it has another content than these files of this machine. Of `varying` files the first
        content is kept where two may build at once.
        """

    def payload(self, folder: Path, files: Files) -> tuple[Files, Files]:
        """All files of a result that is to be committed, and those of them that need not be sent.

        files: those of this machine.
        """

    def commit(self, folder: Path, record: Record, sent: Files) -> bool:
        """Store the files and, last, the record; False where another has committed the result meanwhile."""

    def quarantine(self, folder: Path, to: str) -> None:
        """Move a result to this path below the root; nothing of it is deleted."""


def refuse_other(folder: Path) -> UserError:
    """The error of a result that is committed with other bytes."""
    return UserError("was committed with other content", place=folder, advice="it will not be overwritten.")
