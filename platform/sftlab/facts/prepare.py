"""Writes a facts folder: one parquet table a split, and the topics that they belong to."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from sftlab.errors import UserError
from sftlab.facts.entity_questions import read_tables
from sftlab.facts.table import TOPICS_FILE, synonyms
from sftlab.facts.templates import Topic, dump_topics, load_topics, published_topics
from sftlab.facts.user_facts import read_user_tables

if TYPE_CHECKING:
    import pyarrow as pa

Counts = dict[str, dict[str, int]]


def read_source(source: Path, templates: Path | None) -> tuple[dict[str, pa.Table], dict[str, Topic]]:
    """Facts and topics of EntityQuestions (zip or folder) or of a user's file (.jsonl, .parquet).

    `templates` is a YAML file of topics; without one the published 24 topics hold.
    """
    topics = load_topics(templates) if templates else published_topics()
    if not source.exists():
        raise UserError(f"{source}: not found; give a zip, a folder, or a .jsonl or .parquet file of facts.")
    if source.suffix in (".jsonl", ".parquet"):
        return read_user_tables(source, topics, synonyms()), topics
    return read_tables(source, topics, synonyms()), topics


def write_facts(tables: Mapping[str, pa.Table], topics: Mapping[str, Topic], output: Path) -> Counts:
    """Write the tables below `output`, each by way of a temporary name, so that none is ever half-written.

    Returns the number of facts by split and topic.
    """
    import pyarrow.compute as pc
    import pyarrow.parquet as pq

    output.mkdir(parents=True, exist_ok=True)
    counts: Counts = {}
    for split, table in tables.items():
        part = output / f".{split}.parquet.part"
        pq.write_table(table, part, compression="zstd")
        part.replace(output / f"{split}.parquet")
        counted = pc.value_counts(table["topic"]).to_pylist()
        counts[split] = {row["values"]: row["counts"] for row in counted}
    part = output / f".{TOPICS_FILE}.part"
    part.write_text(dump_topics(topics.values()), encoding="utf-8")
    part.replace(output / TOPICS_FILE)
    return counts
