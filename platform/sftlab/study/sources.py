"""What a study reads from outside the store: its files, told apart by their content."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sftlab.errors import UserError
from sftlab.facts.entity_questions import PUBLISHED_COUNTS
from sftlab.facts.prepare import OWN_FACTS, counts_by_topic, read_source
from sftlab.facts.templates import Topic, load_topics, published_topics
from sftlab.facts.training_sets import even_shares
from sftlab.pocket.extent import fact_counts, model_bytes
from sftlab.pocket.world import world_topics
from sftlab.store.artifact import write_text
from sftlab.store.fingerprint import canonical_json, file_hash, folder_hash
from sftlab.study.spec import FactsSpec, StudySpec
from sftlab.weights.shards import COMPANIONS

MODEL_FILES = ("*.safetensors", *(f"*{ending}" for ending in COMPANIONS))
HASHES = "hashes.json"
PUBLISHED_TEMPLATES = 21


@dataclass(frozen=True)
class Sources:
    """Content hashes of the outside files (`missing:PATH` where one is not there) and their extent.

    fact_counts: facts by split, of an archive that has not been read an estimate; model_bytes: bytes of the
    base weights; templates: mapping templates of a fact's topic, on average over all facts.
    """

    facts: Mapping[str, str]
    model: str | None
    fact_counts: Mapping[str, int]
    model_bytes: int
    templates: float = PUBLISHED_TEMPLATES

    def require(self) -> None:
        """Raises UserError where a file that the study reads is not there."""
        for value in [*self.facts.values(), self.model or ""]:
            if value.startswith("missing:"):
                path = value.removeprefix("missing:")
                hint = "; `make data` fetches EntityQuestions" if "entity_questions" in path else ""
                raise UserError(f"{path}: not found{hint}. Mend the path in the study file or by --set.")


def resolve(spec: StudySpec, root: Path) -> Sources:
    """Look at the files that a study names; hashes of unchanged files are remembered below `root`.

    Raises UserError for topics of a pocket world that are unknown or listed twice, and for own facts or
    topics that cannot be read.
    """
    hashes = _HashCache(root / HASHES)
    if spec.pocket is not None:
        named = {"source": spec.pocket.source} if spec.pocket.source else {}
        world_topics(spec.pocket)
        counts, templates = fact_counts(spec.pocket), float(PUBLISHED_TEMPLATES)
        size = model_bytes(spec.pocket)
        model = None
    else:
        assert spec.facts is not None and spec.model is not None
        named = {"source": spec.facts.source}
        if spec.facts.templates:
            named["templates"] = spec.facts.templates
        counts, templates = _extent(spec.facts)
        folder = Path(spec.model.path)
        model = hashes.folder(folder, MODEL_FILES)
        present = sum(path.stat().st_size for path in folder.glob("*.safetensors"))
        size = present or 2 * (spec.model.parameters or 0)
    found = {key: hashes.of(Path(path)) for key, path in named.items()}
    return Sources(found, model, counts, size, templates)


def require_sizes(sizes: Sequence[int], sources: Sources, field: str) -> None:
    """Raises UserError where a training set would be larger than all the facts that may be trained on."""
    there = sources.fact_counts["train"]
    for size in sizes:
        if size > there:
            raise UserError(
                f"{field}: a training set of {size:,} facts cannot be drawn from {there:,} training facts; "
                "lower the size, or give more facts."
            )


def model_hash(folder: Path, root: Path) -> str:
    """Content hash of a base model's folder, remembered below `root`; `missing:PATH` without its files."""
    return _HashCache(root / HASHES).folder(folder, MODEL_FILES)


def folder_of(model_id: str, root: Path) -> Path | None:
    """Where the base model of a content hash was last seen, if it is still there unchanged; else None."""
    known = _HashCache(root / HASHES).known
    for key, value in known.items():
        folder = Path(key.partition(":[")[0])
        if value == model_id and _is_folder(folder) and model_hash(folder, root) == model_id:
            return folder
    return None


def _is_folder(path: Path) -> bool:
    try:
        return path.is_dir()
    except (OSError, ValueError):  # no path at all: too long, or with a zero byte
        return False


def _extent(facts: FactsSpec) -> tuple[dict[str, int], float]:
    """Facts by split, and the mean number of templates of a fact.

    Counted in own facts, and where topics are given, which choose among an archive's; else those published.
    """
    source, limit = Path(facts.source), {str(split): count for split, count in facts.limit.items()}
    given = Path(facts.templates) if facts.templates else None
    missing = not source.exists() or (given is not None and not given.exists())
    if missing or (given is None and source.suffix not in OWN_FACTS):
        known = load_topics(given) if given and given.exists() else published_topics()
        counts = {split: min(count, limit.get(split, count)) for split, count in PUBLISHED_COUNTS.items()}
        return counts, sum(len(topic.templates) for topic in known.values()) / len(known)
    tables, topics = read_source(source, given)
    kept = {
        split: _kept(by_topic, limit[split]) if split in limit else by_topic
        for split, by_topic in counts_by_topic(tables).items()
    }
    return {split: sum(by_topic.values()) for split, by_topic in kept.items()}, _mean_templates(kept, topics)


def _kept(by_topic: Mapping[str, int], limit: int) -> dict[str, int]:
    """Facts by topic of what the facts stage draws of a split (`study.stages.facts.limited`)."""
    shares = even_shares(limit, len(by_topic))
    return {topic: min(share, by_topic[topic]) for share, topic in zip(shares, sorted(by_topic), strict=True)}


def _mean_templates(kept: Mapping[str, Mapping[str, int]], topics: Mapping[str, Topic]) -> float:
    facts = sum(sum(by_topic.values()) for by_topic in kept.values())
    filled = sum(
        count * len(topics[name].templates) for by_topic in kept.values() for name, count in by_topic.items()
    )
    return filled / facts if facts else 0.0


def _hashes(path: Path) -> dict[str, str]:
    """What is remembered; nothing where the file is missing or damaged, as all of it can be computed again."""
    try:
        known: Any = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError, ValueError, RecursionError):
        return {}
    if not isinstance(known, dict) or not all(isinstance(value, str) for value in known.values()):
        return {}
    return known


class _HashCache:
    """Hashes by path, size and time of change, so that a 140 GB model is read once and not at every plan."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.known = _hashes(path)

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
