"""Tables of a report: entries, rows and captions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

FULL_TONE = 0.10  # a change of this many percentage points / 100 has the darkest shade


@dataclass(frozen=True)
class Entry:
    """One cell of a table. `tone` in [-1, 1] shades worse to better; `note` is small print next to it."""

    text: str
    note: str = ""
    tone: float | None = None
    strong: bool = False
    chosen: bool = False
    below: Sequence[str] = ()  # lines of small print under it
    mark: str = ""  # next to the last line: whether the direction "agrees", "differs" or is "open"


@dataclass(frozen=True)
class Row:
    """A row: its heading and entries; without entries it is a heading across the whole table."""

    heading: str
    entries: Sequence[Entry] = ()
    quiet: bool = False


@dataclass(frozen=True)
class Table:
    """`groups`: (label, columns spanned) above `columns`; the first column holds the rows' headings."""

    caption: str
    corner: str
    columns: Sequence[str]
    rows: Sequence[Row]
    groups: Sequence[tuple[str, int]] = ()
    note: str = ""
    folded: str = ""  # the label of the fold that hides it; empty: shown

    @property
    def notes(self) -> list[bool]:
        """By column, whether any entry has small print, for which the column's others then leave room."""
        return [
            any(row.entries[column].note for row in self.rows if row.entries)
            for column in range(len(self.columns))
        ]


NOTHING = Entry("–")


def key_values(caption: str, values: Sequence[tuple[str, str]]) -> Table | None:
    rows = [Row(key, [Entry(value)]) for key, value in values]
    return Table(caption, "", ["value"], rows) if rows else None
