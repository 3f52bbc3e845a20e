"""Stage 3: mastery of every fact by the base model."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import count, islice
from pathlib import Path
from typing import TYPE_CHECKING

from sftlab.facts.templates import read_topics
from sftlab.measurements.mastery import check_rows, mastery_schema
from sftlab.store.mirror import pull
from sftlab.store.tables import read_table
from sftlab.studies.knowledge.build import KnowledgeBuild

if TYPE_CHECKING:
    import pyarrow as pa

    from sftlab.measurements.scoring import ScoringRequest

FILE = "mastery.parquet"
GROUP_ROWS = 2**17  # of a row group: what writing the table holds in memory
BLOCKS_COPIED = 64


def build_mastery(build: KnowledgeBuild) -> None:
    """Score all splits in one go, so that one start of the engines serves them all."""
    from sftlab.measurements.fact_blocks import FactBlocks
    from sftlab.measurements.scoring import DamagedBlockError, ScoringRequest, drop_damaged

    step, spec = build.plan.mastery, build.plan.spec
    folder = build.read(build.plan.facts)
    request = ScoringRequest(
        FactBlocks.of(folder, spec.mastery.block_facts),
        read_topics(folder),
        str(build.model_folder),
        spec.mastery,
        spec.engine,
        build.store.work(step),
    )
    try:
        _score_and_join(build, request)
    except DamagedBlockError:  # one that a killed run left
        drop_damaged(request)
        _score_and_join(build, request)
    build.commit(step)


def _score_and_join(build: KnowledgeBuild, request: ScoringRequest) -> None:
    """Score what is missing, and write the table of all blocks."""
    from sftlab.measurements.scoring import score, scored

    with build.progress.bar("scoring mastery") as bar:
        score(
            request,
            build.runtime.engine,
            progress=lambda p: bar.update(
                p.blocks_done, p.blocks, f"{p.completions_per_second:,.0f} completions/s"
            ),
        )
    pull(request.output_dir)
    path = build.path(build.plan.mastery) / FILE
    write_mastery(scored(request), request.spec.block_facts, request.facts.split_names(), path)


def write_mastery(blocks: Iterator[pa.Table], block_facts: int, splits: Iterator[str], path: Path) -> None:
    """The mastery table: the rows of all blocks in order, each with its split. In memory is one row group."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    schema = pa.schema([pa.field("split", pa.string()), *mastery_schema()])
    with pq.ParquetWriter(path, schema) as writer:
        for number in count():
            rows = _joined(islice(blocks, max(1, GROUP_ROWS // block_facts)))
            if number and not rows.num_rows:
                break
            names = pa.array(islice(splits, rows.num_rows), pa.string())
            writer.write_table(rows.add_column(0, "split", names))


def _joined(blocks: Iterator[pa.Table]) -> pa.Table:
    """Blocks as one table with a chunk for each: where pages of the file end depends on the chunks.

    A small table takes ten times the memory of its content, and a slice of a larger one does not.
    """
    import pyarrow as pa

    chunks = [mastery_schema().empty_table()]
    while some := list(islice(blocks, BLOCKS_COPIED)):
        copied, start = pa.concat_tables(some).combine_chunks(), 0
        for block in some:
            chunks.append(copied.slice(start, block.num_rows))
            start += block.num_rows
    return pa.concat_tables(chunks)


def read_mastery(
    build: KnowledgeBuild, split: str | None = None, columns: Sequence[str] | None = None
) -> pa.Table:
    """The mastery table, of one split or of all; all columns, or `split` and those named."""
    import pyarrow.compute as pc

    table = read_mastery_file(build.read(build.plan.mastery, FILE), columns)
    return table if split is None else table.filter(pc.equal(table["split"], split))


def read_mastery_file(path: Path, columns: Sequence[str] | None = None) -> pa.Table:
    """What `write_mastery` wrote: all columns, or `split` and those named. Raises as `read_table` does."""
    import pyarrow as pa

    fields = [field for field in mastery_schema() if columns is None or field.name in columns]

    def check(table: pa.Table) -> None:
        rows = table.drop_columns("split")
        check_rows(rows, columns)
        if columns is None:
            _check_hits(rows)

    return read_table(path, pa.schema([pa.field("split", pa.string(), nullable=False), *fields]), check)


def _check_hits(table: pa.Table) -> None:
    """Raises ValueError where two facts of one topic were asked by other numbers of templates, or one by none."""
    import pyarrow as pa
    import pyarrow.compute as pc

    counts = pa.table({"topic": table["topic"], "templates": pc.list_value_length(table["hits"])})
    kinds = counts.filter(pc.is_valid(counts["templates"])).group_by(["topic", "templates"]).aggregate([])
    if len(pc.unique(kinds["topic"])) != kinds.num_rows or 0 in kinds["templates"].to_pylist():
        raise ValueError("facts of one topic have hits of other numbers of templates")


def buckets_of(build: KnowledgeBuild, split: str) -> dict[str, int]:
    """Mastery bucket by fact id; facts whose row is an error have none."""
    table = read_mastery(build, split, ["fact_id", "bucket"])
    pairs = zip(table["fact_id"].to_pylist(), table["bucket"].to_pylist(), strict=True)
    return {fact: bucket for fact, bucket in pairs if bucket is not None}
