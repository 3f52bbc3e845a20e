"""Stage 4: the training sets of the grid, drawn by mastery."""

from __future__ import annotations

from sftlab.facts.table import read_facts
from sftlab.facts.training_sets import draw_training_set
from sftlab.study.build import Build
from sftlab.study.plan import Cell
from sftlab.study.stages.mastery import buckets_of

FILE = "train.parquet"


def build_training_sets(build: Build) -> None:
    """Draw and write every training set that is missing, in the order in which it is trained on."""
    import pyarrow.parquet as pq

    plan = build.plan
    wanted = {cell.training_set.id: cell for cell in (*plan.probes, *plan.cells)}
    cells = [cell for cell in wanted.values() if build.missing(cell.training_set)]
    if not cells:
        return
    facts = read_facts(build.path(plan.facts), "train")
    ids = facts["fact_id"].to_pylist()
    row_of = {fact: row for row, fact in enumerate(ids)}
    topic_of = dict(zip(ids, facts["topic"].to_pylist(), strict=True))
    buckets = buckets_of(build, "train")
    for cell in cells:
        chosen = draw_training_set(topic_of, buckets, cell.bucket, cell.size, cell.seed)
        folder = build.path(cell.training_set)
        folder.mkdir(parents=True, exist_ok=True)
        pq.write_table(facts.take([row_of[fact] for fact in chosen]), folder / FILE)
        build.commit(cell.training_set)


def training_file(build: Build, cell: Cell) -> str:
    return str(build.path(cell.training_set) / FILE)
