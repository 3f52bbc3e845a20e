"""What a survey reads from outside the store, identified by content: base models, instruction sets, benchmarks."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from sftlab.errors import UserError
from sftlab.store.hashes import HASHES, FileHashes
from sftlab.store.outside import MISSING, Outside, hashed_outside
from sftlab.studies.survey.pipeline import READS_MODEL
from sftlab.studies.survey.spec import SurveySpec
from sftlab.weights.model_id import hashed_model

Found = Outside | str
"""A file or folder with its content hash, or the text `missing:PATH`."""


@dataclass(frozen=True)
class SurveySources:
    """By the name of each base, set and benchmark that is a file: what was found of it."""

    bases: dict[str, Found] = field(default_factory=dict)
    data: dict[str, Found] = field(default_factory=dict)
    benchmarks: dict[str, Found] = field(default_factory=dict)

    def all(self) -> Iterator[Found]:
        for part in (self.bases, self.data, self.benchmarks):
            yield from part.values()

    def missing(self) -> list[str]:
        """The files and folders that are not there."""
        return list(
            dict.fromkeys(found.removeprefix(MISSING) for found in self.all() if isinstance(found, str))
        )

    def require(self) -> None:
        """Raises UserError where a file that the survey reads is not there."""
        for path in self.missing():
            raise UserError(
                f"{path}: not found. Correct the path in the survey file, whose folder it is relative to, or by --set."
            )

    def require_unchanged(self, stage: str) -> None:
        """Raises UserError where a file that this stage reads is another than the survey was planned with."""
        read = {"drawn": self.data, "questions": self.benchmarks}.get(stage, {})
        for found in (*read.values(), *(self.bases.values() if stage in READS_MODEL else ())):
            if isinstance(found, Outside) and not found.is_unchanged():
                raise UserError(
                    f"{found.path}: has changed since the survey was planned, so that what was made of it is not kept "
                    f"(stage {stage}). Expected the same content until the end; run again to plan with the new one."
                )


def resolve(spec: SurveySpec, root: Path) -> SurveySources:
    """Look at the files that a survey names; hashes of unchanged files are remembered below `root`."""
    hashes = FileHashes(root / HASHES)

    def hashed(source: str) -> Found:
        return hashed_outside(Path(source), lambda path: [path] if path.is_file() else [], hashes)

    return SurveySources(
        {name: hashed_model(Path(base.path), hashes) for name, base in spec.bases.folders.items()},
        {name: hashed(file.source) for name, file in spec.data.files.items()},
        {name: hashed(file.source) for name, file in spec.benchmarks.files.items()},
    )
