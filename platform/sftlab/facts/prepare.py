"""Writes a facts folder: one parquet table a split, and the topics that they belong to."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from sftlab.errors import UserError
from sftlab.facts.doubts import answered, doubts, without_answered
from sftlab.facts.entity_questions import open_archive, read_tables
from sftlab.facts.fact_files import GIVE, is_own_facts
from sftlab.facts.overlap import shared, without_shared
from sftlab.facts.table import TOPICS_FILE, synonyms
from sftlab.facts.templates import Topic, dump_topics, study_topics
from sftlab.facts.user_facts import read_user_tables
from sftlab.files import write_together

if TYPE_CHECKING:
    import pyarrow as pa

# Where facts come from, for `sftlab list data`.
SOURCES = {
    "pocket": "invented facts and a model pre-trained on them: `pocket` of a study, or `sftlab pocket`",
    "entity-questions": "the EntityQuestions zip or its unpacked folder: `facts.source`; `make data` fetches it",
    "custom-facts": "your facts in .jsonl, .ndjson, .json (each also .gz) or .parquet: `facts.source`, with "
    "`facts.templates` for further topics",
    "instructions": "instruction data in one of the formats of `sftlab list formats`; `sftlab data show` previews it",
}

Counts = dict[str, dict[str, int]]


def read_source(
    source: Path, templates: Path | None, in_domain: Sequence[str] | None = None
) -> tuple[dict[str, pa.Table], dict[str, Topic]]:
    """Facts and topics of EntityQuestions (zip or folder) or of a user's file (`fact_files`).

    templates, in_domain: as `study_topics` takes them.
    """
    topics = study_topics(templates, in_domain)
    if not source.exists():
        raise UserError("not found", place=source, advice=f"{GIVE}, or the zip or folder of EntityQuestions.")
    if is_own_facts(source):
        return read_user_tables(source, topics), topics
    return read_tables(source, topics, synonyms()), topics


def left_out(source: Path, topics: Mapping[str, Topic]) -> str:
    """A notice of an archive's topics that are not in `topics`, so that none of their facts is read; "" if none.

    In own facts a topic without templates is an error (`read_user_tables`).
    """
    if is_own_facts(source):
        return ""
    dropped = sorted(open_archive(source).topics() - topics.keys())
    names = ", ".join(map(repr, dropped))
    return f"{source}: left out, as there are no templates for them: the topics {names}." if dropped else ""


def notices(source: Path, tables: Mapping[str, pa.Table], topics: Mapping[str, Topic]) -> list[str]:
    """What a reader of these facts should know: topics that are left out, doubtful answers, and what the splits share.

    Of EntityQuestions only the answers that the question contains are doubted: its names are as published.
    """
    found = [] if is_own_facts(source) else [left_out(source, topics)]
    lines = doubts(tables) if is_own_facts(source) else answered(tables)
    found += [f"{source}: {line}" for line in (*lines, *(one.line for one in shared(tables)))]
    return [line for line in found if line]


def excluded(
    tables: Mapping[str, pa.Table], exclude_answered: bool | None, exclude_overlap: bool | None
) -> dict[str, pa.Table]:
    """The splits without facts that their questions answer, and without facts that splits share, as asked for."""
    kept = without_answered(tables) if exclude_answered else dict(tables)
    return without_shared(kept) if exclude_overlap else kept


def write_facts(tables: Mapping[str, pa.Table], topics: Mapping[str, Topic], output: Path) -> Counts:
    """Write the tables and their topics below `output` (`write_folder`).

    Returns the number of facts by split and topic.
    """
    write_folder(tables, topics.values(), output, "zstd")
    return counts_by_topic(tables)


def counts_text(counts: Counts) -> str:
    """The number of facts of each topic in each split, as a table whose last row and column are sums."""
    topics = sorted({topic for found in counts.values() for topic in found})
    rows = [["topic", *counts, "all"]]
    for topic in topics:
        found = [by_topic.get(topic, 0) for by_topic in counts.values()]
        rows.append([topic, *(f"{number:,}" for number in (*found, sum(found)))])
    sums = [sum(by_topic.values()) for by_topic in counts.values()]
    rows.append(["all", *(f"{number:,}" for number in (*sums, sum(sums)))])
    first, *others = (max(map(len, column)) for column in zip(*rows, strict=True))
    return "\n".join(
        "  ".join(
            [name.ljust(first), *(cell.rjust(width) for cell, width in zip(cells, others, strict=True))]
        )
        for name, *cells in rows
    )


def write_folder(
    tables: Mapping[str, pa.Table], topics: Iterable[Topic], output: Path, compression: str
) -> None:
    """Write each table as NAME.parquet, and the topics: all of them or, where the disk refuses one, none.

    Raises UserError naming the file that cannot be written.
    """
    import pyarrow.parquet as pq

    files: dict[str, Callable[[Path], object]] = {
        f"{name}.parquet": partial(pq.write_table, table, compression=compression)
        for name, table in tables.items()
    }
    text = dump_topics(topics).encode()
    write_together(output, files | {TOPICS_FILE: lambda path: path.write_bytes(text)})


def counts_by_topic(tables: Mapping[str, pa.Table]) -> Counts:
    """Number of facts by split and topic."""
    import pyarrow.compute as pc

    return {
        split: {row["values"]: row["counts"] for row in pc.value_counts(table["topic"]).to_pylist()}
        for split, table in tables.items()
    }
