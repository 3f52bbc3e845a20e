"""What every stage is handed, and the one way in which a finished step is committed."""

from __future__ import annotations

import errno
import shutil
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from sftlab.errors import UserError
from sftlab.execution.progress import Progress
from sftlab.execution.runtime import Runtime
from sftlab.execution.stage import StudyPlan
from sftlab.store.artifact import Store
from sftlab.store.mirror import pull
from sftlab.store.record import WORK, Record, Step


@dataclass(frozen=True)
class Build:
    """A study that is being built: what to compute, where results are, with which resources, and who watches."""

    plan: StudyPlan
    store: Store
    runtime: Runtime
    progress: Progress

    def path(self, step: Step) -> Path:
        """Folder of a step, for a stage to write to, or to hand to workers, who `pull` it."""
        return self.store.path(step)

    def read(self, step: Step, name: str = "") -> Path:
        """Path of a committed step, or of a file or folder in it: its bytes are here, and those recorded.

        Raises Damaged where they are not.
        """
        return pull(self.store.path(step) / name)

    def missing(self, *steps: Step) -> list[Step]:
        """Those of the steps that are not committed yet, in their order."""
        return [step for step in steps if self.store.find(step) is None]

    def lacking(self, *steps: Step) -> list[Step]:
        """`missing`, for those who build them now: damaged results are quarantined, and parts of others are fetched."""
        found = self.missing(*steps)
        for step in found:
            notice = self.store.quarantine(step)
            if notice is not None:
                self.progress.say(notice)
            elif self.store.is_begun(step):
                pull(self.path(step))
        return found

    def commit(self, step: Step, varying: Collection[str] = ()) -> Record:
        """`Store.commit` a step and drop its unfinished parts.

        Raises UserError where the file system refuses, and where a file outside the store that the step was made of
        has changed since the study was planned.
        """
        self.plan.outside.require_unchanged(step.stage)
        try:
            record = self.store.commit(step, varying)
        except OSError as error:
            where = error.filename or self.path(step)
            raise UserError(
                f"cannot be committed ({error.strerror})", place=where, advice=f"{_advice(error)}."
            ) from error
        for unfinished in (self.path(step) / WORK, *self.path(step).rglob(".*")):
            if unfinished.is_dir():
                shutil.rmtree(unfinished, ignore_errors=True)
            else:
                unfinished.unlink(missing_ok=True)
        return record


def _advice(error: OSError) -> str:
    if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        return "free some space and run again; what is finished is kept"
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return "make the store writable, or choose another by --store"
    return "look at the disk or mount of the store, then run again; what is finished is kept"
