"""Reads EntityQuestions (Sciavolino et al. 2021) from its official archive, zip or unpacked folder.

The study keeps rows with one answer and then drops repeated question texts over a whole split and domain,
not per topic. That gives its totals exactly: 75,944 train, 9,555 test, 11,613 test_ood.
"""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from sftlab.config.documents import parse_json
from sftlab.errors import Place, UserError
from sftlab.facts.table import accepted_names, fact_id, facts_table
from sftlab.facts.templates import Topic

if TYPE_CHECKING:
    import pyarrow as pa

PUBLISHED_COUNTS = {"train": 75_944, "test": 9_555, "test_ood": 11_613, "dev": 9_580, "dev_ood": 11_563}
# The official archive: 3.6 MB, 72 files, the largest of which unpacks to 1.2 MB.
MAX_ARCHIVE_BYTES = 64 * 2**20
MAX_MEMBERS = 10_000
MAX_MEMBER_BYTES = 16 * 2**20
PIECE = 2**16
TRAIN = ".train.json"  # ends the name of a file with a topic's facts to train on
SOURCES = {
    "train": ("train", "in-domain"),
    "test": ("test", "in-domain"),
    "test_ood": ("test", "out-of-domain"),
    "dev": ("dev", "in-domain"),
    "dev_ood": ("dev", "out-of-domain"),
}


class Archive(Protocol):
    """Where the JSON files come from; `read` takes (split, topic) and raises UserError."""

    def read(self, split: str, topic: str) -> tuple[str, bytes]: ...

    def topics(self) -> set[str]:
        """The topics of which there are facts to train on."""


class FolderArchive:
    """An unpacked archive: a folder that holds `train/P17.train.json`, perhaps below `dataset/`."""

    def __init__(self, root: Path) -> None:
        self.root = root / "dataset" if (root / "dataset").is_dir() else root
        if not (self.root / "train").is_dir():
            prepared = " These are tables that `sftlab prepare` wrote: give what they were made from."
            hint = prepared if (root / "train.parquet").exists() else ""
            raise UserError(
                f"holds no dataset/train folder, so it is not EntityQuestions unpacked.{hint}", place=root
            )

    def read(self, split: str, topic: str) -> tuple[str, bytes]:
        path = self.root / split / f"{topic}.{split}.json"
        try:
            whole = path.resolve(strict=True)
            if not whole.is_relative_to(self.root.resolve()) or not whole.is_file():
                raise UserError(
                    "is no file of this folder but leads out of it",
                    place=path,
                    advice="unpack the archive again.",
                )
            if whole.stat().st_size > MAX_MEMBER_BYTES:
                raise UserError(f"has {whole.stat().st_size:,} bytes, over {MAX_MEMBER_BYTES:,}", place=path)
            return str(path), whole.read_bytes()
        except OSError as error:
            raise UserError(
                f"cannot be read ({error.strerror})", place=path, advice="unpack the archive again."
            ) from error

    def topics(self) -> set[str]:
        return {path.name.removesuffix(TRAIN) for path in (self.root / "train").glob(f"*{TRAIN}")}


class ZipArchive:
    """The official zip. Members are read in memory, in pieces, and never unpacked to disk."""

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            size = path.stat().st_size
            if size > MAX_ARCHIVE_BYTES:
                raise UserError(
                    f"has {size:,} bytes, over {MAX_ARCHIVE_BYTES:,}",
                    place=path,
                    advice="it is not EntityQuestions.",
                )
            self.zip = zipfile.ZipFile(path)
        except (zipfile.BadZipFile, OSError, NotImplementedError, ValueError) as error:
            raise UserError(
                f"is not a readable zip file ({error})", place=path, advice="fetch it again."
            ) from error
        if len(self.zip.infolist()) > MAX_MEMBERS:
            raise UserError(f"has {len(self.zip.infolist()):,} members, over {MAX_MEMBERS:,}", place=path)
        self.members = {}
        for info in self.zip.infolist():
            parts = info.filename.replace("\\", "/").split("/")
            if info.filename.startswith("/") or ".." in parts:
                raise UserError(
                    f"member {info.filename!r} climbs out of the archive",
                    place=path,
                    value=info.filename,
                    advice="do not trust it.",
                )
            self.members["/".join(parts[-2:])] = info
        if not any(name.startswith("train/") for name in self.members):
            raise UserError(
                "holds no dataset/train/*.json, so it is not the EntityQuestions archive", place=path
            )

    def read(self, split: str, topic: str) -> tuple[str, bytes]:
        name = f"{split}/{topic}.{split}.json"
        where = f"{self.path}:{name}"
        info = self.members.get(name)
        if info is None:
            raise UserError("is missing in the archive", place=where, advice="fetch it again.")
        if info.file_size > MAX_MEMBER_BYTES:
            raise UserError(
                f"would unpack to {info.file_size:,} bytes, over {MAX_MEMBER_BYTES:,}", place=where
            )
        if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            raise UserError(
                "cannot be unpacked (its compression is not that of the official archive)",
                place=where,
                advice="fetch it again.",
            )
        try:
            return where, self._unpacked(info)
        except (zipfile.BadZipFile, OSError, EOFError, zlib.error, ValueError) as error:
            raise UserError(
                f"is damaged ({error})", place=where, advice="fetch the archive again."
            ) from error
        except RuntimeError as error:  # encrypted, or of an unknown version
            raise UserError(
                f"cannot be unpacked ({error})",
                place=where,
                advice="fetch the archive again, or give its unpacked folder.",
            ) from error

    def topics(self) -> set[str]:
        names = (name.removeprefix("train/") for name in self.members if name.startswith("train/"))
        return {name.removesuffix(TRAIN) for name in names if name.endswith(TRAIN)}

    def _unpacked(self, info: zipfile.ZipInfo) -> bytes:
        """A member, unpacked piece by piece: read at once, a few kB may unpack to GB whatever the header says."""
        pieces = []
        with self.zip.open(info) as member:
            while piece := member.read(PIECE):
                pieces.append(piece)
        return b"".join(pieces)


def open_archive(source: Path) -> Archive:
    """A zip or a folder as an Archive. Raises UserError where it is neither."""
    if not source.exists():
        raise UserError(
            "not found", place=source, advice="give the EntityQuestions zip or its unpacked folder."
        )
    return FolderArchive(source) if source.is_dir() else ZipArchive(source)


def read_tables(
    source: Path, topics: Mapping[str, Topic], names: Mapping[str, Sequence[str]]
) -> dict[str, pa.Table]:
    """The five splits as tables of facts.

    Args:
        source: the zip or folder.
        topics: the topics to read, by id.
        names: accepted names by object (`sftlab.facts.table.synonyms`).
    """
    archive = open_archive(source)
    return {
        split: facts_table(
            _split_facts(archive, folder, [t for t in topics.values() if t.domain == domain], names)
        )
        for split, (folder, domain) in SOURCES.items()
    }


def _split_facts(
    archive: Archive, split: str, topics: Sequence[Topic], names: Mapping[str, Sequence[str]]
) -> Iterator[dict[str, Any]]:
    seen: set[str] = set()
    for topic in topics:
        where, payload = archive.read(split, topic.topic)
        for index, row in enumerate(_parse_rows(where, payload)):
            place = Place(where, index + 1)
            question, answers = _check_row(row, place)
            if len(answers) != 1 or question in seen:
                continue
            seen.add(question)
            subject = topic.subject_of(question)
            if subject is not None and not subject.strip():
                raise UserError(f"{question!r} names no subject", place=place.of("question"), value=question)
            if subject is None:
                raise UserError(f"{question!r} does not read {topic.question!r}", place=place, value=question)
            yield {
                "fact_id": fact_id(topic.topic, subject, answers[0]),
                "topic": topic.topic,
                "subject": subject,
                "object": answers[0],
                "accepted": accepted_names(answers[0], names),
                "question": question,
            }


def _parse_rows(where: str, payload: bytes) -> list[Any]:
    rows = parse_json(payload, where, "fetch the archive again.")
    if not isinstance(rows, list):
        raise UserError(f"is a {type(rows).__name__}", place=where, value=rows, expected="a list of rows")
    return rows


def _check_row(row: Any, where: Place) -> tuple[str, list[str]]:
    if not isinstance(row, dict) or not isinstance(row.get("question"), str):
        raise UserError(place=where, value=row, expected="{question: text, answers: [text, ...]}")
    answers = row.get("answers")
    if (
        not isinstance(answers, list)
        or not all(isinstance(a, str) and a.strip() for a in answers)
        or not answers
    ):
        raise UserError(place=where.of("answers"), value=answers, expected="a list of non-empty texts")
    return row["question"], answers
