"""The tables of an evaluation: their columns, and their readers, which raise as `read_table` does."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from sftlab.measurements.answers import answer_schema
from sftlab.store.tables import filled, read_table

if TYPE_CHECKING:
    import pyarrow as pa


def read_answer_table(path: Path) -> pa.Table:
    """Answers of one model (see `answer_schema`), each with its fact and split."""
    import pyarrow as pa

    always = ("fact_id", "split", "tokens")
    return read_table(path, pa.schema([f.with_nullable(f.name not in always) for f in answer_schema()]))


def read_completions(path: Path, rows: int) -> list[str | None]:
    """The base model's completions of the facts of the divergence, of which there are `rows`.

    None where a fact's prompt was too long to ask.
    """
    import pyarrow as pa

    wanted = pa.schema([("completion", pa.string())])
    table = read_table(path, wanted, lambda table: _check_rows(table, rows))
    found: list[str | None] = table["completion"].to_pylist()
    return found


def read_logits(path: Path, names: Sequence[str], width: int, rows: int | None = None) -> pa.Table:
    """token_ids list<int32>, and a list<float32> column for each of `names`, `width` numbers in every row.

    rows: how many there must be, if that is known.
    """
    import pyarrow as pa

    kinds = {"token_ids": pa.int32(), **dict.fromkeys(names, pa.float32())}
    wanted = filled(pa.schema([(name, pa.list_(kind)) for name, kind in kinds.items()]))

    def check(table: pa.Table) -> None:
        if rows is not None:
            _check_rows(table, rows)
        _check_widths(table, width)

    return read_table(path, wanted, check)


def _check_rows(table: pa.Table, rows: int) -> None:
    if table.num_rows != rows:
        raise ValueError(f"has {table.num_rows} rows, expected {rows}")


def _check_widths(table: pa.Table, width: int) -> None:
    import pyarrow.compute as pc

    for name in table.column_names:
        if set(pc.unique(pc.list_value_length(table[name])).to_pylist()) - {width}:
            raise ValueError(f"{name}: a row has not {width} numbers")
        if pc.list_flatten(table[name]).null_count:
            raise ValueError(f"{name}: a number is missing")
