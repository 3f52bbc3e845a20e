"""Tables of the store as rows of NamedTuples."""

from __future__ import annotations

import json
from collections.abc import Set
from dataclasses import fields
from pathlib import Path
from types import NoneType
from typing import TYPE_CHECKING, Any, get_args, get_type_hints

from sftlab.errors import UserError

if TYPE_CHECKING:
    import pyarrow as pa


def schema_of(row: type[Any]) -> pa.Schema:
    """Arrow schema of a row type: int64, float64, string and bool; nullable where the field may be None."""
    import pyarrow as pa

    arrow = {int: pa.int64(), float: pa.float64(), str: pa.string(), bool: pa.bool_()}
    hints = get_type_hints(row)
    columns = []
    for column in fields(row):
        options = get_args(hints[column.name]) or (hints[column.name],)
        kind = next(option for option in options if option is not NoneType)
        columns.append(pa.field(column.name, arrow[kind], nullable=NoneType in options))
    return pa.schema(columns)


def read_summary(path: Path, what: str, format: int, keys: Set[str]) -> dict[str, Any]:
    """The JSON file next to the result tables of a study or a sweep (`what`), with at least these keys.

    Raises UserError naming the file where it cannot be read, has another format, or lacks a key.
    """
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(
            f"cannot be read ({error.strerror})", place=path, expected=f"a {what}'s results"
        ) from error
    except (ValueError, RecursionError) as error:
        raise UserError(f"is not JSON: {error}", place=path) from error
    if not isinstance(found, dict) or found.get("format") != format:
        raise UserError(
            f"is not a {what}'s results of format {format}", place=path, advice=f"run the {what} again."
        )
    missing = keys - found.keys()
    if missing:
        raise UserError(f"lacks {', '.join(sorted(missing))}", place=path)
    return found


def read_rows(path: Path, row: type[Any]) -> tuple[Any, ...]:
    """The rows of a parquet table of one row type. Raises UserError naming a file that is not one."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        table = pq.read_table(path)
        table.validate(full=True)  # texts too
    except (OSError, pa.ArrowException, UnicodeDecodeError) as error:
        raise UserError(f"is not a readable parquet table: {error}", place=path) from error
    expected = schema_of(row)
    if table.schema.names != expected.names:
        raise UserError(f"has the columns {table.schema.names}", place=path, expected=f"{expected.names}")
    for found, wanted in zip(table.schema, expected, strict=True):
        if found.type != wanted.type:
            raise UserError(
                f"column {found.name} is of type {found.type}", place=path, expected=f"{wanted.type}"
            )
    return tuple(row(**values) for values in table.to_pylist())
