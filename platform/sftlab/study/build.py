"""What every stage is handed, and the one way in which a finished step is committed."""

from __future__ import annotations

import errno
import shutil
from dataclasses import dataclass
from pathlib import Path

from sftlab.errors import UserError
from sftlab.store.artifact import WORK, Record, Step, Store
from sftlab.study.plan import Plan
from sftlab.study.progress import Progress
from sftlab.study.runtime import Runtime


@dataclass(frozen=True)
class Build:
    """A study on its way: what to compute, where results lie, with which resources, who watches."""

    plan: Plan
    store: Store
    runtime: Runtime
    progress: Progress

    def path(self, step: Step) -> Path:
        """Folder of a step, for a stage to read from or to write to."""
        return self.store.path(step)

    def missing(self, *steps: Step) -> list[Step]:
        """Those of the steps that are not committed yet, in their order."""
        return [step for step in steps if self.store.find(step) is None]

    def commit(self, step: Step) -> Record:
        """Commit a step and drop its unfinished parts. Raises UserError where the file system refuses."""
        try:
            record = self.store.commit(step)
        except OSError as error:
            where = error.filename or self.path(step)
            raise UserError(f"{where}: cannot be committed ({error.strerror}); {_advice(error)}.") from error
        shutil.rmtree(self.path(step) / WORK, ignore_errors=True)
        return record

    @property
    def model_folder(self) -> Path:
        """The base model: pre-trained here, or brought by the study."""
        if self.plan.model is not None:
            return self.path(self.plan.model) / "model"
        assert self.plan.spec.model is not None
        return Path(self.plan.spec.model.path).resolve()  # workers have other working folders


def _advice(error: OSError) -> str:
    if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        return "free some space and run again; what is finished is kept"
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return "make the store writable, or choose another by --store"
    return "look at the disk or mount of the store, then run again; what is finished is kept"
