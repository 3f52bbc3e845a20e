"""Stage 8: how large the update of every tuned model is, by layer and module."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING

from sftlab.store.mirror import pull
from sftlab.store.tables import filled, read_table
from sftlab.studies.knowledge.build import KnowledgeBuild
from sftlab.studies.knowledge.plan import Cell
from sftlab.weights.update_size import UpdateSize, update_sizes

if TYPE_CHECKING:
    import pyarrow as pa

FILE = "updates.parquet"


def updates_schema() -> pa.Schema:
    """Columns of the table: the fields of `weights.update_size.UpdateSize`."""
    import pyarrow as pa

    kinds = {"layer": pa.string(), "module": pa.string(), "weights": pa.int64(), "changed": pa.int64()}
    sums = dict.fromkeys(("absolute", "squared", "relative", "squared_base"), pa.float64())
    return pa.schema(list((kinds | sums).items()))


def build_updates(build: KnowledgeBuild) -> None:
    """Measure the update of every tuned model that has none yet."""
    cells = [cell for cell in build.plan.cells if build.missing(cell.updates)]
    build.each("sizes of the updates", cells, build_cell_updates)


def build_cell_updates(build: KnowledgeBuild, cell: Cell) -> None:
    """Measure the update of one tuned model and commit it."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    rows = [asdict(size) for size in update_sizes(build.model_folder, pull(build.tuned_model(cell)))]
    folder = build.path(cell.updates)
    folder.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_pylist(rows, schema=updates_schema()), folder / FILE)
    build.commit(cell.updates)


def read_updates(build: KnowledgeBuild, cell: Cell) -> list[UpdateSize]:
    """The committed sizes of a cell."""
    table = read_table(build.read(cell.updates, FILE), filled(updates_schema()))
    return [UpdateSize(**row) for row in table.to_pylist()]
