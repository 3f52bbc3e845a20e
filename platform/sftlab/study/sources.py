"""What a study reads from outside the store: its files, identified by their content."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from sftlab.errors import UserError
from sftlab.facts.entity_questions import PUBLISHED_COUNTS
from sftlab.facts.prepare import OWN_FACTS, counts_by_topic, read_source
from sftlab.facts.templates import Topic, load_topics, published_topics
from sftlab.facts.training_sets import even_shares
from sftlab.pocket.extent import fact_counts, model_bytes
from sftlab.pocket.world import world_topics
from sftlab.store.fingerprint import rows_hash
from sftlab.store.hashes import HASHES, FileHashes, Hashed, quick_stamp, steady_hash
from sftlab.study.spec import FactsSpec, StudySpec
from sftlab.weights.shards import model_files

PUBLISHED_TEMPLATES = 21
READS_FACTS = frozenset(
    {"facts"}
)  # stages that read the files of the facts, and those of a brought base model
READS_MODEL = frozenset({"mastery", "tuned", "change", "evaluation", "best", "sweep-best"})


@dataclass
class Outside:
    """A file, or the files of a folder as `listing` finds them, with their content hash when the study was planned."""

    path: Path
    listing: Callable[[Path], list[Path]]
    sha256: str
    files: tuple[Hashed, ...]

    def is_unchanged(self) -> bool:
        """Whether the content is still the planned one; it is read again only where a stamp is another."""
        try:
            found = self.listing(self.path)
            same = found == [file.path for file in self.files]
            if same and all(quick_stamp(file.path) == file.stamp for file in self.files):
                return True
            known = {file.path: file for file in self.files}
            files = tuple(
                known[path] if path in known and quick_stamp(path) == known[path].stamp else steady_hash(path)
                for path in found
            )
        except (FileNotFoundError, UserError):  # gone, or a model no more: its files contradict each other
            return False
        if not files or content_hash(self.path, files) != self.sha256:
            return False
        self.files = files
        return True


@dataclass(frozen=True)
class Sources:
    """Content hashes of the outside files (`missing:PATH` where one is not there) and their extent.

    fact_counts: facts by split, of an archive that has not been read an estimate; model_bytes: bytes of the
    base weights; templates: mapping templates of a fact's topic, on average over all facts; facts_files and
    model_files: what was hashed.
    """

    facts: Mapping[str, str]
    model: str | None
    fact_counts: Mapping[str, int]
    model_bytes: int
    templates: float = PUBLISHED_TEMPLATES
    facts_files: tuple[Outside, ...] = ()
    model_files: tuple[Outside, ...] = ()

    def require_unchanged(self, stage: str) -> None:
        """Raises UserError where a file that this stage reads is another than the study was planned with.

        A result made from it would carry the id of the old content.
        """
        facts = self.facts_files if stage in READS_FACTS else ()
        for outside in (*facts, *(self.model_files if stage in READS_MODEL else ())):
            if not outside.is_unchanged():
                raise UserError(
                    f"{outside.path}: has changed since the study was planned, so that what was made of it is not kept "
                    f"(stage {stage}). Expected the same content until the end; run again to plan with the new one."
                )

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
    hashes = FileHashes(root / HASHES)
    model: Outside | str | None = None
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
        counts, templates = _extent(spec.facts)
        folder = Path(spec.model.path)
        model = _model(folder, hashes)
        weights = [path for path in model_files(folder) if path.suffix == ".safetensors"]
        size = sum(path.stat().st_size for path in weights) or 2 * (spec.model.parameters or 0)
    found = {key: _hashed(Path(path), archive_files, hashes) for key, path in named.items()}
    return Sources(
        {key: _id(outside) or "" for key, outside in found.items()},
        _id(model),
        counts,
        size,
        templates,
        tuple(outside for outside in found.values() if isinstance(outside, Outside)),
        (model,) if isinstance(model, Outside) else (),
    )


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
    """Content hash of a base model's folder, of large files remembered below `root`; `missing:PATH` without files.

    Raises UserError where its files contradict each other (`weights.shards.layout`).
    """
    return _id(_model(folder, FileHashes(root / HASHES))) or ""


def folder_of(model_id: str, root: Path) -> Path | None:
    """Where the base model of a content hash was last seen, if it is still there unchanged; else None."""
    place = FileHashes(root / HASHES).folders.get(model_id)
    folder = None if place is None else Path(place)
    if folder is not None and _is_folder(folder) and _hash_if_sound(folder, root) == model_id:
        return folder
    return None


def _hash_if_sound(folder: Path, root: Path) -> str | None:
    """None for a folder that has changed so that it is no model any more."""
    try:
        return model_hash(folder, root)
    except UserError:
        return None


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


def content_hash(path: Path, files: Sequence[Hashed]) -> str:
    """The hash that identifies a file, or a folder by the relative paths and hashes of its files."""
    if [file.path for file in files] == [path]:
        return files[0].sha256
    return rows_hash((file.path.relative_to(path).as_posix(), file.sha256) for file in files)


def _hashed(path: Path, listing: Callable[[Path], list[Path]], hashes: FileHashes) -> Outside | str:
    """A file or folder with its content hash; `missing:PATH` where there is nothing."""
    files = tuple(hashes.of(listing(path)))
    return Outside(path, listing, content_hash(path, files), files) if files else f"missing:{path}"


def _model(folder: Path, hashes: FileHashes) -> Outside | str:
    found = _hashed(folder, model_files, hashes) if folder.is_dir() else f"missing:{folder}"
    if isinstance(found, Outside):
        hashes.saw_folder(found.sha256, folder)
    return found


def _id(found: Outside | str | None) -> str | None:
    return found.sha256 if isinstance(found, Outside) else found


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
