"""The facts of a folder in blocks, read as they are needed: the number of facts does not show in memory."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from sftlab.errors import UserError
from sftlab.facts.table import COLUMNS, SPLITS, open_facts, unreadable

if TYPE_CHECKING:
    import pyarrow as pa

PIECE_ROWS = 4096  # facts that are decoded at a time


@dataclass(frozen=True)
class FactBlocks:
    """All facts of a folder, one split after the other, in blocks of `size`; the last one may be smaller.

    A block may hold the end of one split and the beginning of the next. Holds no facts itself, so that it is
    cheap to send.

    Attributes:
        folder: a facts folder, which every process that reads blocks must see.
        size: facts of a block.
        splits: the splits, in order.
        rows: their numbers of facts.
    """

    folder: Path
    size: int
    splits: tuple[str, ...]
    rows: tuple[int, ...]

    @classmethod
    def of(cls, folder: Path, size: int, splits: Sequence[str] = SPLITS) -> FactBlocks:
        """The blocks of a facts folder. Raises UserError where a file is no table of facts."""
        rows = []
        for split in splits:
            with open_facts(folder, split) as file:
                rows.append(file.metadata.num_rows)
        return cls(folder, size, tuple(splits), tuple(rows))

    def __len__(self) -> int:
        return -(-sum(self.rows) // self.size)

    def rows_of(self, index: int) -> int:
        """Facts of one block."""
        return min(self.size, sum(self.rows) - index * self.size)

    def split_names(self) -> Iterator[str]:
        """The split of every fact, in order."""
        for split, rows in zip(self.splits, self.rows, strict=True):
            for _ in range(rows):
                yield split


class FactReader:
    """Reads blocks, quickly in rising order; going back begins again at the first file."""

    def __init__(self, blocks: FactBlocks, columns: Sequence[str] = COLUMNS) -> None:
        import pyarrow as pa

        self.blocks, self.columns = blocks, list(columns)
        text = pa.string()
        fields = {name: pa.list_(text) if name == "accepted" else text for name in self.columns}
        self._none = pa.schema(fields).empty_table()
        self._start, self.held, self._pieces = (
            0,
            self._none,
            self._read(),
        )  # rows, from which on, and those to come

    def block(self, index: int) -> pa.Table:
        """The facts of one block. Raises UserError where a file is damaged, or is not the one that was counted."""
        import pyarrow as pa

        start = index * self.blocks.size
        end = start + self.blocks.rows_of(index)
        if start < self._start:
            self._start, self.held, self._pieces = 0, self._none, self._read()
        while self._start + self.held.num_rows < end:
            skipped = min(start - self._start, self.held.num_rows)
            self._start += skipped
            piece = next(self._pieces, None)
            if piece is None:
                raise UserError(
                    "holds fewer facts than before", place=self.blocks.folder, advice="was it written again?"
                )
            self.held = pa.concat_tables([self.held.slice(skipped), piece])
        return self.held.slice(start - self._start, end - start)

    def _read(self) -> Iterator[pa.Table]:
        import pyarrow as pa

        for split in self.blocks.splits:
            with open_facts(self.blocks.folder, split) as file:
                try:
                    for batch in file.iter_batches(PIECE_ROWS, columns=self.columns):
                        yield pa.Table.from_batches([batch]).select(self.columns)
                except (pa.ArrowException, OSError) as error:
                    raise unreadable(self.blocks.folder, split, error) from error
