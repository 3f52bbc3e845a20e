"""A data file as conversations: read, found by its columns, filtered and checked row by row."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

from sftlab.config.documents import nearest
from sftlab.datasets.conversations import Conversation, Turn, UnusableError, checked
from sftlab.datasets.formats import Detected, custom, detect, named
from sftlab.datasets.read import Container, Rows, open_rows
from sftlab.datasets.spec import DataFileSpec
from sftlab.errors import UserError


@dataclass
class Source:
    """An opened data file. `rows` and `dropped` (left out, by reason) count what `conversations` has read so far."""

    spec: DataFileSpec
    container: Container
    columns: tuple[str, ...]
    detected: Detected
    _rows: Rows
    rows: int = 0
    dropped: Counter[str] = field(default_factory=Counter)

    @property
    def unread_columns(self) -> list[str]:
        """Columns that neither the format nor `where` reads."""
        read = {*self.detected.columns.values(), *self.spec.where}
        return [name for name in self.columns if name not in read]

    def conversations(self, rows: int | None = None) -> Iterator[Conversation]:
        """The conversations of the file in its order, once; of its first `rows` rows where that is given.

        Raises UserError naming file, row and field for a row that is not of the format, and for one that is no
        conversation unless the spec leaves these out.
        """
        given = self.spec.drop_responses
        dropped = {
            text.strip().casefold() for text in (self.detected.drop_responses if given is None else given)
        }
        for where, row in islice(self._rows.all, rows):
            self.rows += 1
            if not self._wanted(row, where):
                self.dropped["where"] += 1
                continue
            turns = self._arranged(self.detected.turns(row, where))
            if turns and turns[-1].role == "assistant" and turns[-1].text.strip().casefold() in dropped:
                self.dropped[f"response {turns[-1].text.strip()!r}"] += 1
                continue
            try:
                yield checked(turns, where)
            except UnusableError as error:
                if self.spec.unusable == "refuse":
                    raise
                self.dropped[error.reason] += 1

    def _wanted(self, row: Mapping[str, Any], where: str) -> bool:
        for column, values in self.spec.where.items():
            if column not in row:
                raise UserError(
                    f"lacks the field {column!r}, which `where` compares", place=where, value=column
                )
            if not any(type(row[column]) is type(value) and row[column] == value for value in values):
                return False
        return True

    def _arranged(self, turns: list[Turn]) -> list[Turn]:
        """System text and exchanges as the spec wants them."""
        system = turns[:1] if turns and turns[0].role == "system" else []
        dialogue = turns[len(system) :]
        if self.spec.turns == "first":
            dialogue = dialogue[:2]
        if system and self.spec.system == "prepend" and dialogue and dialogue[0].text.strip():
            first = f"{system[0].text.strip()}\n{dialogue[0].text.strip()}".strip()
            dialogue = [Turn(dialogue[0].role, first, dialogue[0].loss), *dialogue[1:]]
        return [*system, *dialogue] if self.spec.system == "keep" else dialogue


def open_data(spec: DataFileSpec) -> Source:
    """Open a data file and find its format.

    Raises UserError naming the file, its columns and the nearest format where none fits.
    """
    path = Path(spec.source)
    rows = open_rows(path)
    where, first = str(path), rows.first
    name = None if spec.format == "auto" else spec.format
    if spec.columns is not None:
        detected = custom(spec.columns, name, first, rows.columns, where)
    elif name is not None:
        detected = named(name, first, rows.columns, where)
    else:
        detected = detect(first, rows.columns, where)
    for column in spec.where:
        if column not in rows.columns:
            near = nearest(column, rows.columns)
            hint = f"did you mean {near!r}?" if near else f"the columns are {', '.join(rows.columns[:20])}."
            raise UserError(
                f"has no column {column!r}, which `where` compares",
                place=where,
                value=column,
                advice=hint,
            )
    return Source(spec, rows.container, rows.columns, detected, rows)
