"""Stage 3: mastery of every fact by the base model."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sftlab.facts.table import SPLITS, TOPICS_FILE, read_facts
from sftlab.facts.templates import load_topics
from sftlab.study.build import Build

if TYPE_CHECKING:
    import pyarrow as pa

FILE = "mastery.parquet"


def build_mastery(build: Build) -> None:
    """Score all splits in one go, so that one start of the engines serves them all."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    from sftlab.inference.scorer import score

    step, spec = build.plan.mastery, build.plan.spec
    folder = build.path(build.plan.facts)
    tables = {split: read_facts(folder, split) for split in SPLITS}
    split_column = pa.array([s for s, table in tables.items() for _ in range(table.num_rows)], pa.string())
    facts = pa.concat_tables(list(tables.values()))
    with build.progress.bar("scoring mastery") as bar:
        scored = score(
            facts,
            load_topics(folder / TOPICS_FILE),
            str(build.model_folder),
            spec.mastery,
            spec.engine,
            build.runtime.engine,
            build.store.work(step),
            progress=lambda p: bar.update(
                p.blocks_done, p.blocks, f"{p.completions_per_second:,.0f} completions/s"
            ),
        )
    pq.write_table(scored.add_column(0, "split", split_column), build.path(step) / FILE)
    build.commit(step)


def read_mastery(build: Build, split: str | None = None) -> pa.Table:
    """The mastery table, of one split or of all."""
    import pyarrow.compute as pc
    import pyarrow.parquet as pq

    table = pq.read_table(build.path(build.plan.mastery) / FILE)
    return table if split is None else table.filter(pc.equal(table["split"], split))


def buckets_of(build: Build, split: str) -> dict[str, int]:
    """Mastery bucket by fact id; facts whose row is an error have none."""
    table = read_mastery(build, split)
    pairs = zip(table["fact_id"].to_pylist(), table["bucket"].to_pylist(), strict=True)
    return {fact: bucket for fact, bucket in pairs if bucket is not None}
