"""Tables of the store, read so that a damaged or a foreign one ends in a message, whatever it contains."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from sftlab.errors import UserError
from sftlab.store.mirror import display_path, result_of
from sftlab.store.record import Damaged

if TYPE_CHECKING:
    import pyarrow as pa

Check = Callable[["pa.Table"], None]
"""Raises ValueError where the rows of a table are not what they must be."""


def read_table(path: Path, wanted: pa.Schema, check: Check | None = None) -> pa.Table:
    """The columns of `wanted` from a parquet file, in this order, each with its type; other columns are not read.

    A column that `wanted` calls not nullable has a value in every row.

    Raises UserError naming the file where it is not such a table; Damaged, which is one, where the file belongs to
    a committed result, so that this is quarantined and built again if its bytes are not those recorded.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(path) as file:
            _check_columns(file.schema_arrow, wanted)
            table = file.read(wanted.names).select(wanted.names)
        table.validate(full=True)  # texts too
        for field in wanted:
            if not field.nullable and table[field.name].null_count:
                raise ValueError(f"the column {field.name} lacks values")
        if check is not None:
            check(table)
    except (pa.ArrowException, OSError, ValueError) as error:
        raise _refused(path, error) from error
    return table


def filled(schema: pa.Schema) -> pa.Schema:
    """The schema with a value in every row of every column."""
    import pyarrow as pa

    return pa.schema([field.with_nullable(False) for field in schema])


def _check_columns(found: pa.Schema, wanted: pa.Schema) -> None:
    for field in wanted:
        if found.names.count(field.name) != 1:
            raise ValueError(
                f"lacks the column {field.name}, or has it twice; expected {', '.join(wanted.names)}"
            )
        if found.field(field.name).type != field.type:
            kind = found.field(field.name).type
            raise ValueError(f"the column {field.name} is of type {kind}, expected {field.type}")


def _refused(path: Path, error: Exception) -> UserError:
    folder = result_of(path)
    by_system = isinstance(error, OSError) and error.errno is not None  # and not by the parser
    if folder is None or by_system:
        return UserError(
            f"is not a readable table ({error})",
            place=display_path(path),
            advice="if it can be read again, run again; else delete it, and it is made again.",
        )
    return Damaged(folder, f"{path.relative_to(folder)} is not a readable table: {error}")
