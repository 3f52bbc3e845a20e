"""What a study reads from outside the store: its files, identified by their content."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from sftlab.errors import UserError
from sftlab.execution.outside import OutsideFiles
from sftlab.execution.stage import files_by_stage
from sftlab.facts.entity_questions import PUBLISHED_COUNTS
from sftlab.facts.fact_files import is_own_facts
from sftlab.facts.prepare import counts_by_topic, excluded, read_source
from sftlab.facts.templates import Topic, study_topics
from sftlab.facts.training_sets import even_shares
from sftlab.facts.user_facts import read_user_facts
from sftlab.pocket.extent import fact_counts, model_bytes
from sftlab.pocket.world import world_topics
from sftlab.store.hashes import HASHES, FileHashes
from sftlab.store.hub import HubId, Kind, Report, fetch, is_on_hub, origin_of
from sftlab.store.outside import MISSING, Found, Outside, hashed_outside, outside_id
from sftlab.studies.knowledge.pipeline import STAGES
from sftlab.studies.knowledge.spec import FactsSpec, StudySpec
from sftlab.weights.model_id import hashed_model
from sftlab.weights.shards import model_files

PUBLISHED_TEMPLATES = 21
HINTS = {"entity_questions": "`make data` fetches EntityQuestions"}


@dataclass(frozen=True)
class Sources:
    """Content hashes of the outside files (`missing:PATH` where one is not there) and their extent.

    fact_counts: facts by split, of an archive that has not been read an estimate; model_bytes: bytes of the
    base weights; templates: mapping templates of a fact's topic, on average over all facts; outside: what was hashed.
    """

    facts: Mapping[str, str]
    model: str | None
    fact_counts: Mapping[str, int]
    model_bytes: int
    templates: float = PUBLISHED_TEMPLATES
    outside: OutsideFiles = field(default_factory=OutsideFiles)

    @property
    def lacks_facts(self) -> bool:
        """Whether a file of the facts is not there."""
        return any(value.startswith(MISSING) for value in self.facts.values())


def fetched(spec: StudySpec, online: bool, report: Report | None = None) -> StudySpec:
    """The study with what it names of a hub as paths in the cache, and the model's commit as its revision.

    online: whether a hub may be contacted. What the cache lacks else stays as it is, and is missing. Raises UserError
    as `store.hub.fetch`.
    """
    model, facts, pocket = spec.model, spec.facts, spec.pocket

    def place(text: str, kind: Kind, revision: str | None = None) -> str:
        found = fetch(text, kind, revision, online, report) if is_on_hub(text) else None
        return text if found is None else str(found)

    if model is not None and is_on_hub(model.path):
        path = place(model.path, "model", model.revision)
        origin = origin_of(Path(path))
        commit = model.revision if origin is None else HubId.of(origin).revision
        model = model.model_copy(update={"path": path, "revision": commit})
    if facts is not None:
        facts = facts.model_copy(update={"source": place(facts.source, "dataset")})
    if pocket is not None and pocket.source:
        pocket = pocket.model_copy(update={"source": place(pocket.source, "dataset")})
    return spec.model_copy(update={"model": model, "facts": facts, "pocket": pocket})


def resolve(spec: StudySpec, root: Path) -> Sources:
    """Look at the files that a study names; hashes of unchanged files are remembered below `root`.

    Raises UserError for topics of a pocket world that are unknown or listed twice, and for own facts or
    topics that cannot be read.
    """
    hashes = FileHashes(root / HASHES)
    model: Found | None = None
    version = 1
    if spec.pocket is not None:
        named = {"source": spec.pocket.source} if spec.pocket.source else {}
        world_topics(spec.pocket)
        counts, templates = fact_counts(spec.pocket), float(PUBLISHED_TEMPLATES)
        size = model_bytes(spec.pocket)
    else:
        assert spec.facts is not None and spec.model is not None
        named = {"source": spec.facts.source}
        if spec.facts.templates:
            named["templates"] = spec.facts.templates
        counts, templates, version = _extent(spec.facts)
        folder = Path(spec.model.path)
        model = hashed_model(folder, hashes)
        weights = [path for path in model_files(folder) if path.suffix == ".safetensors"]
        size = sum(path.stat().st_size for path in weights) or 2 * (spec.model.parameters or 0)
    found = {key: hashed_outside(Path(path), archive_files, hashes) for key, path in named.items()}
    facts = {key: outside_id(outside) or "" for key, outside in found.items()}
    for outside in found.values():
        if isinstance(outside, Outside) and origin_of(outside.path):
            hashes.saw_folder(outside.sha256, outside.path)
    if version > 1:  # facts of which an earlier version of the reader made something else are other facts
        facts["reading"] = str(version)
    return Sources(
        facts,
        outside_id(model),
        counts,
        size,
        templates,
        OutsideFiles(_by_stage(tuple(found.values()), () if model is None else (model,)), HINTS),
    )


def _by_stage(facts: tuple[Found, ...], model: tuple[Found, ...]) -> dict[str, tuple[Found, ...]]:
    """What each stage reads; so does the folder of the model that a sweep recommends."""
    return files_by_stage(STAGES, {"facts": facts, "model": model}) | {"sweep-best": model}


def require_sizes(sizes: Sequence[int | str], sources: Sources, field: str) -> None:
    """Raises UserError where a training set would be larger than all the facts that may be trained on."""
    there = sources.fact_counts["train"]
    if not there and sources.lacks_facts:
        return
    for size in sizes:
        if isinstance(size, int) and size > there:
            raise UserError(
                f"a training set of {size:,} facts cannot be drawn from {there:,} training facts",
                place=field,
                advice="lower the size, or give more facts.",
            )


def archive_files(path: Path) -> list[Path]:
    """A file, or the JSON files below a folder: in order, those in linked folders too."""
    if path.is_file():
        return [path]
    found = {file for folder in (path, *_linked_folders(path)) for file in folder.glob("**/*.json")}
    return sorted(file for file in found if file.is_file())


def _linked_folders(root: Path) -> list[Path]:
    """The folders below `root` that are reached by links alone, which a glob does not enter; each link once."""
    found: list[Path] = []
    entered = {root.resolve()}
    open_folders = [root]
    while open_folders:
        for place, names, _ in os.walk(open_folders.pop()):
            for link in (Path(place, name) for name in names if Path(place, name).is_symlink()):
                found.append(link)
                if link.resolve() not in entered:
                    entered.add(link.resolve())
                    open_folders.append(link)
    return found


def _extent(facts: FactsSpec) -> tuple[dict[str, int], float, int]:
    """Facts by split, the mean number of templates of a fact, and `UserFacts.version` (1 for an archive).

    Counted in own facts, and where topics are given, which choose among an archive's; else those published. Of own
    facts that are not there nothing is known: 0.
    """
    source, limit = Path(facts.source), {str(split): count for split, count in facts.limit.items()}
    given = Path(facts.templates) if facts.templates else None
    missing = not source.exists() or (given is not None and not given.exists())
    own = is_own_facts(source)
    if missing and own:
        return dict.fromkeys(PUBLISHED_COUNTS, 0), 0.0, 1
    chosen = None if given is not None and not given.exists() else facts.in_domain
    topics = study_topics(given if given is not None and given.exists() else None, chosen)
    filtered = facts.exclude_overlap or facts.exclude_answered or facts.in_domain is not None
    if missing or (given is None and not own and not filtered):
        counts = {split: min(count, limit.get(split, count)) for split, count in PUBLISHED_COUNTS.items()}
        return counts, sum(len(topic.templates) for topic in topics.values()) / len(topics), 1
    version = 1
    if own:
        read = read_user_facts(source, topics)
        tables, version = read.tables, read.version
    else:
        tables, topics = read_source(source, given, chosen)
    tables = excluded(tables, facts.exclude_answered, facts.exclude_overlap)
    kept = {
        split: _kept(by_topic, limit[split]) if split in limit else by_topic
        for split, by_topic in counts_by_topic(tables).items()
    }
    totals = {split: sum(by_topic.values()) for split, by_topic in kept.items()}
    return totals, _mean_templates(kept, topics), version


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
