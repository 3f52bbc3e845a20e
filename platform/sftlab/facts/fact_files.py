"""Rows of a file of custom facts: JSON lines, a JSON list or parquet, with the place of each."""

from __future__ import annotations

import gzip
import json
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from sftlab.config.documents import parse_json, unknown_hint
from sftlab.config.unpacked import MAX_RATIO, SMALL, check_table
from sftlab.errors import Place, UserError

if TYPE_CHECKING:
    import pyarrow as pa

FIELDS = ("subject", "object", "topic")
KNOWN = (*FIELDS, "accepted", "split")
# Columns that dataframes write beside the data.
IGNORED = ("id", "index", "level_0", "Unnamed: 0")
LINES = (".jsonl", ".ndjson")
LIST = ".json"
TABLE = ".parquet"
PACKED = ".gz"
GIVE = "give .jsonl, .ndjson or .json (each also as .gz), or .parquet"
_BETWEEN = frozenset(" \t\r\n,")
MAX_LINE = 2**20  # characters of a line
MAX_LIST = 2**26  # characters of a JSON list
BATCH_ROWS = 16  # each may be as long as the table's longest text, however small the file
# What people have in place of these, and the call that converts it.
_PANDAS = "pandas.read_{kind}({name!r}).to_json({to!r}, orient='records', lines=True, force_ascii=False)"
_CONVERSIONS = {
    ".csv": _PANDAS,
    ".tsv": _PANDAS.replace("({name!r})", "({name!r}, sep='\\t')"),
    ".xlsx": _PANDAS,
    ".xls": _PANDAS,
    ".feather": _PANDAS,
    ".pkl": _PANDAS,
    ".pickle": _PANDAS,
    ".arrow": "polars.read_ipc({name!r}).write_ndjson({to!r})",
    ".yaml": "json.dump(yaml.safe_load(open({name!r})), open({to!r}, 'w'))",
    ".yml": "json.dump(yaml.safe_load(open({name!r})), open({to!r}, 'w'))",
}
_KINDS = {".csv": "csv", ".tsv": "csv", ".xlsx": "excel", ".xls": "excel", ".feather": "feather"}


def ending(path: Path) -> str:
    """How the name of a file ends, in lower case, without `.gz`; "" for a folder."""
    if path.is_dir():
        return ""
    name = path.name.lower().removesuffix(PACKED)
    return Path(name).suffix


def is_own_facts(path: Path) -> bool:
    """Whether a path is a file of custom facts, by its name. Raises UserError for a file of another kind.

    A folder and a zip are EntityQuestions.
    """
    if path.is_dir():
        return False
    kind, packed = ending(path), path.name.lower().endswith(PACKED)
    if kind in (*LINES, LIST) or (kind == TABLE and not packed):
        return True
    if kind == ".zip" and not packed:
        return False
    if path.is_file() and not zipfile.is_zipfile(path):
        raise UserError(
            f"a file ending in {path.suffix or 'nothing'!r} is not read as facts",
            place=path,
            value=path.suffix or "nothing",
            advice=f"{GIVE}, or the zip or folder of EntityQuestions.{_conversion(path, kind)}",
        )
    return False


def _conversion(path: Path, kind: str) -> str:
    call = _CONVERSIONS.get(kind)
    if call is None:
        return ""
    to = f"{path.stem}.json" if kind in (".yaml", ".yml") else f"{path.stem}.jsonl"
    return f" To convert it: {call.format(kind=_KINDS.get(kind, 'pickle'), name=path.name, to=to)}"


def rows_of(path: Path) -> Iterator[tuple[Place, Any]]:
    """Every row with its place. Raises UserError naming the file, and the row where there is one."""
    kind = ending(path)
    if kind == TABLE:
        for index, row in enumerate(_parquet_rows(path)):
            yield Place(str(path), index + 1), row
        return
    try:
        with _opened(path) as file:
            yield from _list_rows(file, path) if kind == LIST else _line_rows(file, path)
    except (OSError, EOFError, zlib.error, UnicodeDecodeError) as error:
        raise UserError(f"cannot be read ({error})", place=path, advice=f"{GIVE}.") from error


def _opened(path: Path) -> TextIO:
    if path.name.lower().endswith(PACKED):
        return gzip.open(path, "rt", encoding="utf-8-sig")
    return path.open(encoding="utf-8-sig")  # some editors put a mark before the first line


def _line_rows(file: TextIO, path: Path) -> Iterator[tuple[Place, Any]]:
    read, most = 0, max(SMALL, MAX_RATIO * path.stat().st_size)
    for index, line in enumerate(iter(lambda: file.readline(MAX_LINE), "")):
        where = Place(str(path), index + 1, unit="line")
        read += len(line)
        if read > most:
            raise UserError(
                f"the file unpacks to over {MAX_RATIO} times its size", place=where, advice=f"{GIVE}."
            )
        if len(line) == MAX_LINE:
            raise UserError(
                f"has over {MAX_LINE:,} characters", place=where, advice="give one object a line."
            )
        if line.strip():
            yield where, parse_json(line, where, "give one object a line.")


def _list_rows(file: TextIO, path: Path) -> Iterator[tuple[Place, Any]]:
    """The objects of a JSON list; of a file of lines, which some tools name .json too, those of its lines."""
    text = file.read(MAX_LIST + 1)
    if len(text) > MAX_LIST:
        raise UserError(
            f"has over {MAX_LIST:,} characters", place=path, advice="give one object a line, as .jsonl."
        )
    if not text.lstrip().startswith("["):
        for index, line in enumerate(text.split("\n")):
            where = Place(str(path), index + 1, unit="line")
            if line.strip():
                yield (
                    where,
                    parse_json(line, where, "give a list of objects, or one object a line."),
                )
        return
    for index, row in enumerate(_parsed_list(text, path)):
        yield Place(str(path), index + 1), row


def _parsed_list(text: str, path: Path) -> Any:
    """The value of a JSON text that begins as a list. Raises UserError that names the row where only one is wrong."""
    advice = "give a list of objects."
    try:
        return parse_json(text, str(path), advice)
    except UserError:
        for index, item in enumerate(_items(text)):
            parse_json(item, Place(str(path), index + 1), advice)
        raise


def _items(text: str) -> Iterator[str]:
    """The texts of a list's items, up to the first that is no JSON."""
    decoder, at = json.JSONDecoder(), text.index("[") + 1
    while True:
        while text[at : at + 1] in _BETWEEN:
            at += 1
        try:
            _, end = decoder.raw_decode(text, at)
        except (ValueError, RecursionError):
            return
        yield text[at:end]
        at = end


def _parquet_rows(path: Path) -> Iterator[dict[str, Any]]:
    """The rows of a table, read a few at a time: a small file may unpack to more than any memory holds."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(path) as file:
            columns = _check_columns(path, file.schema_arrow)
            check_table(path, file.metadata)
            for batch in file.iter_batches(batch_size=BATCH_ROWS, columns=columns):
                yield from batch.to_pylist()
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        raise UserError(f"is not a readable parquet table: {error}", place=path) from error


def _check_columns(path: Path, schema: pa.Schema) -> list[str]:
    """The columns to read: texts and, for `accepted`, lists of texts, however a dataframe stores them.

    Raises UserError for a column that is unknown, given twice or of another kind.
    """
    ignored = {*IGNORED, *_index_columns(schema)}
    columns = [name for name in schema.names if name in KNOWN or name not in ignored]
    for name in columns:
        if name not in KNOWN:
            drop = f"; or leave it out: table.drop({name!r}) in polars, df.drop(columns={name!r}) in pandas"
            hint = unknown_hint(name, KNOWN)
            raise UserError(
                f"unknown field {name!r}", place=path, value=name, advice=f"{hint.removesuffix('.')}{drop}."
            )
        if columns.count(name) > 1:
            raise UserError(f"has the column {name!r} twice", place=path, value=name, advice="keep one.")
        kind = schema.field(name).type
        if not (_is_texts(kind) if name == "accepted" else _is_text(kind)):
            raise UserError(
                f"is a column of type {kind}",
                place=Place(str(path), field=name),
                value=kind,
                advice=_repair(name, kind),
            )
    return columns


def _index_columns(schema: pa.Schema) -> set[str]:
    """Columns that pandas wrote for the index of a dataframe; `subject` and the like may be an index too."""
    try:
        described = json.loads((schema.metadata or {}).get(b"pandas", b"{}"))
    except ValueError:
        return set()
    named = described.get("index_columns", []) if isinstance(described, dict) else []
    return {name for name in named if isinstance(name, str)} if isinstance(named, list) else set()


def _is_text(kind: pa.DataType) -> bool:
    """Whether values are texts or nothing: strings, large strings, views, and categories of them."""
    import pyarrow.types as types

    if types.is_dictionary(kind):
        kind = kind.value_type
    return bool(
        types.is_string(kind)
        or types.is_large_string(kind)
        or types.is_string_view(kind)
        or types.is_null(kind)
    )


def _is_texts(kind: pa.DataType) -> bool:
    """Whether values are lists of texts or nothing: lists of all sizes and kinds."""
    import pyarrow.types as types

    lists = (
        types.is_list,
        types.is_large_list,
        types.is_fixed_size_list,
        types.is_list_view,
        types.is_large_list_view,
    )
    return types.is_null(kind) or (any(test(kind) for test in lists) and _is_text(kind.value_type))


def _repair(name: str, kind: pa.DataType) -> str:
    """What was expected, and the call that makes it of the column."""
    if name != "accepted":
        return (
            f"expected text. In pandas: df[{name!r}] = df[{name!r}].astype(str); in polars: "
            f"df.with_columns(pl.col({name!r}).cast(pl.String))."
        )
    if _is_text(kind):
        return (
            "expected lists of texts. In pandas: df['accepted'] = df['accepted'].str.split('|'); in polars: "
            "df.with_columns(pl.col('accepted').str.split('|')); with the separator of your file."
        )
    return (
        "expected lists of texts. In pandas: df['accepted'] = df['accepted'].map(lambda names: [*map(str, names)]); in "
        "polars: df.with_columns(pl.col('accepted').cast(pl.List(pl.String)))."
    )
