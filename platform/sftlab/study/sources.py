"""What a study reads from outside the store: its files, told apart by their content."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from sftlab.errors import UserError
from sftlab.facts.entity_questions import PUBLISHED_COUNTS
from sftlab.pocket.extent import fact_counts, model_bytes
from sftlab.store.artifact import write_text
from sftlab.store.fingerprint import canonical_json, file_hash, folder_hash
from sftlab.study.spec import FactsSpec, StudySpec

MODEL_FILES = ("*.safetensors", "*.json", "*.model", "*.txt", "*.jinja")
HASHES = "hashes.json"


@dataclass(frozen=True)
class Sources:
    """Content hashes of the outside files (`missing:PATH` where one is not there) and their extent.

    fact_counts: facts by split, before they are read an estimate; model_bytes: bytes of the base weights.
    """

    facts: Mapping[str, str]
    model: str | None
    fact_counts: Mapping[str, int]
    model_bytes: int

    def require(self) -> None:
        """Raises UserError where a file that the study reads is not there."""
        for value in [*self.facts.values(), self.model or ""]:
            if value.startswith("missing:"):
                path = value.removeprefix("missing:")
                hint = "; `make data` fetches EntityQuestions" if "entity_questions" in path else ""
                raise UserError(f"{path}: not found{hint}. Mend the path in the study file or by --set.")


def resolve(spec: StudySpec, root: Path) -> Sources:
    """Look at the files that a study names; hashes of unchanged files are remembered below `root`."""
    hashes = _HashCache(root / HASHES)
    if spec.pocket is not None:
        named = {"source": spec.pocket.source} if spec.pocket.source else {}
        counts = fact_counts(spec.pocket)
        size = model_bytes(spec.pocket)
        model = None
    else:
        assert spec.facts is not None and spec.model is not None
        named = {"source": spec.facts.source}
        if spec.facts.templates:
            named["templates"] = spec.facts.templates
        counts = _limited(spec.facts)
        folder = Path(spec.model.path)
        model = hashes.folder(folder, MODEL_FILES)
        present = sum(path.stat().st_size for path in folder.glob("*.safetensors"))
        size = present or 2 * (spec.model.parameters or 0)
    return Sources({key: hashes.of(Path(path)) for key, path in named.items()}, model, counts, size)


def model_hash(folder: Path, root: Path) -> str:
    """Content hash of a base model's folder, remembered below `root`; `missing:PATH` without its files."""
    return _HashCache(root / HASHES).folder(folder, MODEL_FILES)


def folder_of(model_id: str, root: Path) -> Path | None:
    """Where the base model of a content hash was last seen, if it is still there unchanged; else None."""
    known = _HashCache(root / HASHES).known
    for key, value in known.items():
        folder = Path(key.partition(":[")[0])
        if value == model_id and folder.is_dir() and model_hash(folder, root) == model_id:
            return folder
    return None


def _limited(facts: FactsSpec) -> dict[str, int]:
    return {split: min(count, facts.limit.get(split, count)) for split, count in PUBLISHED_COUNTS.items()}  # type: ignore[call-overload]


class _HashCache:
    """Hashes by path, size and time of change, so that a 140 GB model is read once and not at every plan."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.known: dict[str, str] = json.loads(path.read_text()) if path.exists() else {}

    def of(self, path: Path) -> str:
        return self.folder(path, ("**/*.json",)) if path.is_dir() else self._file(path)

    def _file(self, path: Path) -> str:
        if not path.is_file():
            return f"missing:{path}"
        stat = path.stat()
        return self._remember(f"{path.resolve()}:{stat.st_size}:{stat.st_mtime_ns}", lambda: file_hash(path))

    def folder(self, path: Path, patterns: tuple[str, ...]) -> str:
        found = sorted({p for pattern in patterns for p in path.glob(pattern)})
        if not found:
            return f"missing:{path}"
        stats = [(p.name, p.stat().st_size, p.stat().st_mtime_ns) for p in found]
        key = f"{path.resolve()}:{canonical_json([list(row) for row in stats])}"
        return self._remember(key, lambda: folder_hash(path, patterns))

    def _remember(self, key: str, compute: Callable[[], str]) -> str:
        if key not in self.known:
            self.known[key] = compute()
            write_text(self.path, json.dumps(self.known, indent=1))
        return self.known[key]
