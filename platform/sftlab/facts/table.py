"""The table of facts: its columns, its fact ids, its files."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from hashlib import sha256
from importlib.resources import files
from json import loads
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sftlab.errors import UserError

if TYPE_CHECKING:
    import pyarrow as pa
    import pyarrow.parquet as pq

SPLITS = ("train", "test", "test_ood", "dev", "dev_ood")
COLUMNS = ("fact_id", "topic", "subject", "object", "accepted", "question")
TOPICS_FILE = "topics.json"
READ_BYTES = 2**20  # read ahead of each column of a table that is read piece by piece


def fact_id(topic: str, subject: str, obj: str) -> str:
    """Stable id of a fact: the first 16 hex digits of a SHA-256 over topic, subject and object."""
    return sha256("\x1f".join((topic, subject, obj)).encode()).hexdigest()[:16]


def synonyms() -> dict[str, list[str]]:
    """Accepted names of the 29 objects of Table 12; every other object has its own name alone."""
    data = files("sftlab.facts").joinpath("data/object_synonyms.json").read_text(encoding="utf-8")
    table: dict[str, list[str]] = loads(data)
    return table


def accepted_names(obj: str, table: Mapping[str, Sequence[str]]) -> list[str]:
    """The object first, then its other accepted names in their listed order, each once."""
    return list(dict.fromkeys([obj, *table.get(obj, ())]))


def facts_table(rows: Iterable[Mapping[str, Any]]) -> pa.Table:
    """Rows with the fields of COLUMNS as an Arrow table: strings, and `accepted` a list of strings."""
    import pyarrow as pa

    text = pa.string()
    schema = pa.schema([(name, pa.list_(text) if name == "accepted" else text) for name in COLUMNS])
    return pa.Table.from_pylist([{name: row[name] for name in COLUMNS} for row in rows], schema=schema)


def read_facts(directory: Path, split: str) -> pa.Table:
    """The facts of one split of a facts folder. Raises UserError where the file is not such a table."""
    import pyarrow as pa

    with open_facts(directory, split) as file:
        try:
            table = file.read(list(COLUMNS)).select(list(COLUMNS))
            table.validate(full=True)  # texts too
            return table
        except (pa.ArrowException, OSError) as error:
            raise unreadable(directory, split, error) from error


def open_facts(directory: Path, split: str) -> pq.ParquetFile:
    """The file of one split, to be read piece by piece. Raises UserError where it is no table of facts."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    path = directory / f"{split}.parquet"
    try:
        # One read of a whole column would hold all of it in memory; a buffer bounds that.
        file = pq.ParquetFile(path, buffer_size=READ_BYTES, pre_buffer=False)
    except FileNotFoundError:
        raise UserError(
            "not found", place=path, advice="`sftlab prepare` or `sftlab pocket` writes it."
        ) from None
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        raise unreadable(directory, split, error) from error
    missing = [name for name in COLUMNS if name not in file.schema_arrow.names]
    if missing:
        raise UserError(
            f"lacks the column {', '.join(missing)}", place=path, expected=f"{', '.join(COLUMNS)}"
        )
    for field in facts_table([]).schema:
        found = file.schema_arrow.field(field.name).type
        if found != field.type:
            raise UserError(f"column {field.name} holds {found}", place=path, expected=f"{field.type}")
    return file


def unreadable(directory: Path, split: str, error: Exception) -> UserError:
    """The error for a split whose file is truncated or damaged."""
    return UserError(f"is not a readable parquet table: {error}", place=directory / f"{split}.parquet")
