"""Rows of data files: JSON lines, JSON lists and parquet, plain or gzip, one row at a time in bounded memory.

A file comes from outside. A row is bounded in length, an archive by how far it unpacks, and a parquet table is
read a few rows at a time.
"""

from __future__ import annotations

import gzip
import io
import json
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, Literal, TextIO, cast

from sftlab.config.documents import parse_json
from sftlab.config.unpacked import MAX_RATIO, SMALL, check_table
from sftlab.errors import UserError

if TYPE_CHECKING:
    pass

MAX_ROW = 2**23  # characters of a row
CHUNK = 2**16  # characters that are read at once of a JSON list
BATCH_ROWS = 16  # of a table: each may be as long as its longest text, however small the file
TEXT_SUFFIXES = (".jsonl", ".ndjson", ".json")
SUFFIXES = "give .jsonl, .ndjson or .json (each also as .gz), or .parquet"
_SPACE = " \t\r\n"
_ONE_A_LINE = "give one object a line."

Row = Mapping[str, Any]
Container = Literal["JSON lines", "JSON list", "parquet"]


@dataclass(frozen=True)
class Rows:
    """The rows of a file, each with its place ("FILE, row 3"), to be read once."""

    container: Container
    columns: tuple[str, ...]
    first: Row
    all: Iterator[tuple[str, Row]]


def open_rows(path: Path) -> Rows:
    """The rows of a file; its columns are those of the first row, or of the table.

    Raises UserError naming the file, here and while rows are read, for what is no such file, holds no rows, holds
    a row that is no object, or unpacks to far more than it is.
    """
    if path.is_dir():
        raise UserError("is a folder", place=path, advice=f"{SUFFIXES}.")
    if not path.is_file():
        raise UserError("not found", place=path, advice=f"{SUFFIXES}.")
    if path.suffix == ".parquet":
        columns, rows = _parquet(path)
        container: Container = "parquet"
    elif path.suffix in TEXT_SUFFIXES or (
        path.suffix == ".gz" and path.with_suffix("").suffix in TEXT_SUFFIXES
    ):
        columns, container = (), _text_container(path)
        rows = _text_rows(path, container)
    else:
        raise UserError(
            f"a file ending in {path.suffix or 'no suffix'!r} is not read",
            place=path,
            value=path.suffix or "no suffix",
            advice=f"{SUFFIXES}.",
        )
    first = next(rows, None)
    if first is None:
        raise UserError("holds no rows", place=path, expected="one example a row")
    return Rows(container, columns or tuple(first[1]), first[1], chain([first], rows))


def _text_rows(path: Path, container: Container) -> Iterator[tuple[str, Row]]:
    with _readable(path), _opened(path) as file:
        values = _list_items(file, path) if container == "JSON list" else _lines(file, path)
        for where, value in values:
            if not isinstance(value, dict):
                found = "a list" if isinstance(value, list) else repr(str(value)[:40])
                raise UserError(
                    f"is {found}", place=where, value=value, expected="an object with named fields"
                )
            yield where, value


@contextmanager
def _readable(path: Path) -> Iterator[None]:
    """Turns what a damaged file raises into a UserError."""
    try:
        yield
    except UnicodeDecodeError as error:
        raise UserError(
            f"is not UTF-8 text ({error.reason})",
            place=_undecodable(path),
            advice="save the file as UTF-8.",
        ) from error
    except (OSError, EOFError, zlib.error) as error:
        raise UserError(f"cannot be read ({error})", place=path, advice=f"{SUFFIXES}.") from error


def _undecodable(path: Path) -> str:
    """The line of a file that is no UTF-8 text, counted as an editor does."""
    with _unpacked(path) as file:
        for number, line in enumerate(iter(lambda: file.readline(MAX_ROW), b""), start=1):
            try:
                line.decode("utf-8")
            except UnicodeDecodeError:
                return f"{path}, line {number}"
    return str(path)


def _opened(path: Path) -> TextIO:
    # Some editors put a mark before the first line.
    return io.TextIOWrapper(_unpacked(path), encoding="utf-8-sig")


def _unpacked(path: Path) -> BinaryIO:
    raw: BinaryIO = path.open("rb")
    if path.suffix == ".gz":
        unpacked = _Bounded(cast(BinaryIO, gzip.GzipFile(fileobj=raw)), path)
        raw = cast(BinaryIO, io.BufferedReader(unpacked, CHUNK))
    return raw


class _Bounded(io.RawIOBase):
    """Reads an archive; raises UserError where it unpacks to far more than it is."""

    def __init__(self, stream: BinaryIO, path: Path) -> None:
        self.stream, self.path, self.count = stream, path, 0
        self.most = max(SMALL, MAX_RATIO * path.stat().st_size)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        data = self.stream.read(len(buffer))
        self.count += len(data)
        if self.count > self.most:
            raise UserError(
                f"unpacks to over {self.most:,} bytes, {MAX_RATIO} times its size, which text does not",
                place=self.path,
                advice="give the file unpacked.",
            )
        buffer[: len(data)] = data
        return len(data)

    def close(self) -> None:
        self.stream.close()
        super().close()


def _text_container(path: Path) -> Container:
    """A JSON list where the first character that is no space is a bracket, whatever the file's name."""
    with _readable(path), _opened(path) as file:
        for _ in range(MAX_ROW // CHUNK):
            text = file.read(CHUNK)
            if not text or text.strip(_SPACE):
                return "JSON list" if text.strip(_SPACE)[:1] == "[" else "JSON lines"
    raise UserError(f"begins with over {MAX_ROW:,} blanks", place=path, advice=f"{SUFFIXES}.")


def _lines(file: TextIO, path: Path) -> Iterator[tuple[str, Any]]:
    """Values of the lines that are not blank. `row` counts lines, so that an editor finds it."""
    for index, line in enumerate(iter(lambda: file.readline(MAX_ROW), "")):
        where = f"{path}, row {index + 1}"
        if len(line) == MAX_ROW:
            raise UserError(f"has over {MAX_ROW:,} characters", place=where, advice=_ONE_A_LINE)
        if line.strip(_SPACE):
            advice = _ONE_A_LINE
            if line.strip(_SPACE) == "{":
                advice = "a JSON file holds a list of objects, [{...}, {...}], or one object a line."
            yield where, parse_json(line, where, advice)


def _list_items(file: TextIO, path: Path) -> Iterator[tuple[str, Any]]:
    """The items of a JSON list, without holding more than one of them."""
    decoder, text, at = json.JSONDecoder(), _Window(file), 0
    text.skip("[")
    while True:
        at += 1
        where = f"{path}, row {at}"
        following = text.peek()
        if following == "]" and at == 1:
            break
        yield where, _item(decoder, text, where)
        following = text.peek()
        if following == "]":
            break
        if following != ",":
            found = repr(following) if following else "the end of the file"
            raise UserError(f"is followed by {found}", place=where, expected="',' or ']' in a JSON list")
        text.skip(",")
    text.skip("]")
    if text.peek():
        raise UserError(
            f"goes on after the end of its list ({text.peek()!r})",
            place=path,
            value=text.peek(),
            advice="give one list.",
        )


def _item(decoder: json.JSONDecoder, text: _Window, where: str) -> Any:
    """The value at the window's place; the window is lengthened until it holds all of it."""
    while True:
        try:
            _, end = decoder.raw_decode(text.text, text.at)
        except RecursionError as error:
            raise UserError(
                "is not valid JSON: it is nested too deeply", place=where, advice="give flat objects."
            ) from error
        except ValueError as error:
            if text.lengthen():
                continue
            reason = f"has over {MAX_ROW:,} characters, or " if text.full else ""
            raise UserError(
                f"{reason}is not valid JSON: {error}", place=where, advice="give a list of objects."
            ) from error
        found = text.text[text.at : end]
        text.at = end
        return parse_json(found, where, "give a list of objects.")  # with the checks of a line


class _Window:
    """A piece of a text file with a place in it."""

    def __init__(self, file: TextIO) -> None:
        self.file, self.text, self.at = file, "", 0

    @property
    def full(self) -> bool:
        return len(self.text) - self.at >= MAX_ROW

    def lengthen(self) -> bool:
        """Read on, twice as much each time. False at the end of the file, or where the window is full."""
        if self.full:
            return False
        more = self.file.read(max(CHUNK, len(self.text) - self.at))
        self.text, self.at = self.text[self.at :] + more, 0
        return bool(more)

    def peek(self) -> str:
        """The next character that is no space; empty at the end of the file."""
        while True:
            while self.at < len(self.text) and self.text[self.at] in _SPACE:
                self.at += 1
            if self.at < len(self.text):
                return self.text[self.at]
            if not self.lengthen():
                return ""

    def skip(self, character: str) -> None:
        found = self.peek()
        assert found == character, (found, character)
        self.at += 1
        self.peek()


def _parquet(path: Path) -> tuple[tuple[str, ...], Iterator[tuple[str, Row]]]:
    """Columns and rows of a table."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(path) as file:
            columns = tuple(file.schema_arrow.names)
            check_table(path, file.metadata)
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        raise _no_table(path, error) from error
    for name in columns:
        if columns.count(name) > 1:
            raise UserError(f"has the column {name!r} twice", place=path, value=name, advice="keep one.")
    return columns, _parquet_rows(path, columns)


def _parquet_rows(path: Path, columns: Sequence[str]) -> Iterator[tuple[str, Row]]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    number = 0
    try:
        # A buffer bounds what one read of a long column holds.
        with pq.ParquetFile(path, buffer_size=2**20, pre_buffer=False) as file:
            for batch in file.iter_batches(batch_size=BATCH_ROWS, columns=list(columns)):
                batch.validate(full=True)  # texts too
                for row in batch.to_pylist():
                    number += 1
                    yield f"{path}, row {number}", row
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        raise _no_table(path, error) from error


def _no_table(path: Path, error: Exception) -> UserError:
    return UserError(f"is not a readable parquet table ({error})", place=path, advice="write it again.")
