"""What a survey reads from outside the store, identified by content: base models, instruction sets, benchmarks."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from sftlab.execution.outside import OutsideFiles
from sftlab.execution.stage import files_by_stage
from sftlab.store.hashes import HASHES, FileHashes
from sftlab.store.hub import Kind, Report, fetch, is_on_hub, origin_of
from sftlab.store.outside import Found, Outside, hashed_outside
from sftlab.studies.survey.pipeline import STAGES
from sftlab.studies.survey.spec import SurveySpec
from sftlab.weights.model_id import hashed_model

INCLUDE = "harness.include"  # among the benchmarks, the folder with the tasks of lm-eval


@dataclass(frozen=True)
class SurveySources:
    """By the name of each base, set and benchmark that is a file: what was found of it."""

    bases: dict[str, Found] = field(default_factory=dict)
    data: dict[str, Found] = field(default_factory=dict)
    benchmarks: dict[str, Found] = field(default_factory=dict)

    @cached_property
    def outside(self) -> OutsideFiles:
        """All of them, by the stages that read them."""
        groups = {"model": self.bases, "data": self.data, "benchmarks": self.benchmarks}
        return OutsideFiles(
            files_by_stage(STAGES, {name: [*found.values()] for name, found in groups.items()})
        )


def fetched(spec: SurveySpec, online: bool, report: Report | None = None) -> SurveySpec:
    """The survey with what it names of a hub as paths in the cache (`studies.knowledge.sources.fetched`)."""

    def place(text: str, kind: Kind) -> str:
        found = fetch(text, kind, None, online, report) if is_on_hub(text) else None
        return text if found is None else str(found)

    folders = {
        name: base.model_copy(update={"path": place(base.path, "model")})
        for name, base in spec.bases.folders.items()
    }
    files = {
        part: {
            name: file.model_copy(update={"source": place(file.source, "dataset")})
            for name, file in found.items()
        }
        for part, found in (
            ("data", spec.data.files),
            ("benchmarks", spec.benchmarks.files),
            ("programs", spec.benchmarks.programs),
        )
    }
    code = spec.benchmarks.code
    benchmarks = {
        "files": files["benchmarks"],
        "code": code and code.model_copy(update={"files": files["programs"]}),
    }
    return spec.model_copy(
        update={
            "bases": spec.bases.model_copy(update={"folders": folders}),
            "data": spec.data.model_copy(update={"files": files["data"]}),
            "benchmarks": spec.benchmarks.model_copy(update=benchmarks),
        }
    )


def resolve(spec: SurveySpec, root: Path) -> SurveySources:
    """Look at the files that a survey names; hashes of unchanged files are remembered below `root`."""
    hashes = FileHashes(root / HASHES)

    def hashed(source: str) -> Found:
        found = hashed_outside(Path(source), lambda path: [path] if path.is_file() else [], hashes)
        if isinstance(found, Outside) and origin_of(found.path):
            hashes.saw_folder(found.sha256, found.path)
        return found

    benchmarks = {name: hashed(file.source) for name, file in spec.benchmarks.files.items()}
    benchmarks |= {name: hashed(file.source) for name, file in spec.benchmarks.judged.items()}
    benchmarks |= {name: hashed(file.source) for name, file in spec.benchmarks.programs.items()}
    if spec.benchmarks.harness is not None and spec.benchmarks.harness.include is not None:
        benchmarks[INCLUDE] = hashed_outside(Path(spec.benchmarks.harness.include), _all_files, hashes)
    return SurveySources(
        {name: hashed_model(Path(base.path), hashes) for name, base in spec.bases.folders.items()},
        {name: hashed(file.source) for name, file in spec.data.files.items()},
        benchmarks,
    )


def _all_files(folder: Path) -> list[Path]:
    """The files of a folder and of the folders in it, but for what Python writes there."""
    return sorted(path for path in folder.rglob("*") if path.is_file() and "__pycache__" not in path.parts)
