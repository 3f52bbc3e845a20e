"""Stage 1: the facts folder."""

from __future__ import annotations

from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING

from sftlab.errors import UserError
from sftlab.facts.prepare import excluded, notices, read_source, write_facts
from sftlab.facts.table import read_facts
from sftlab.facts.training_sets import even_shares
from sftlab.studies.knowledge.build import KnowledgeBuild

if TYPE_CHECKING:
    import pyarrow as pa


def build_facts(build: KnowledgeBuild) -> None:
    """Write the facts: invented ones, a sample of real ones for the pocket model, or all of a source."""
    step, spec = build.plan.facts, build.plan.spec
    output = build.path(step)
    if spec.pocket is not None:
        from sftlab.pocket.pretrain import build_facts as build_pocket_facts

        tables = read_source(Path(spec.pocket.source), None)[0] if spec.pocket.source else None
        build_pocket_facts(spec.pocket, output, tables)
    else:
        assert spec.facts is not None
        templates = Path(spec.facts.templates) if spec.facts.templates else None
        tables, topics = read_source(Path(spec.facts.source), templates, spec.facts.in_domain)
        tables = excluded(tables, spec.facts.exclude_answered, spec.facts.exclude_overlap)
        for notice in notices(Path(spec.facts.source), tables, topics):
            build.progress.say(notice)
        limit = spec.facts.limit
        kept = {
            name: limited(table, limit[name], spec.facts.seed) if name in limit else table
            for name, table in tables.items()
        }
        write_facts(kept, topics, output)
    _require_dev(output)
    build.commit(step)


def _require_dev(folder: Path) -> None:
    """Raises UserError where no dev question is there: without any no restore percentage can be chosen."""
    if not any(read_facts(folder, split).num_rows for split in ("dev", "dev_ood")):
        raise UserError(
            "the splits dev and dev_ood have no facts, so that no restore percentage could be chosen",
            place=folder,
            advice="give some facts `split: dev`, bring more facts, or raise facts.limit.",
        )


def limited(table: pa.Table, limit: int, seed: int) -> pa.Table:
    """At most `limit` facts, drawn by seed and spread evenly over the topics that have enough; table order."""
    import pyarrow as pa

    by_topic: dict[str, list[int]] = {}
    for row, topic in enumerate(table["topic"].to_pylist()):
        by_topic.setdefault(topic, []).append(row)
    ids = table["fact_id"].to_pylist()
    shares = even_shares(limit, len(by_topic))
    kept: list[int] = []
    for share, topic in zip(shares, sorted(by_topic), strict=True):
        drawn = sorted(
            by_topic[topic], key=lambda row: sha256(f"limit\x1f{seed}\x1f{ids[row]}".encode()).digest()
        )
        kept += drawn[:share]
    return table.take(pa.array(sorted(kept), pa.int64()))
