"""How far a compressed file from outside may unpack: a small file must not fill the memory."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from sftlab.errors import Place, UserError

if TYPE_CHECKING:
    import pyarrow.parquet as pq

SMALL = 16 * 2**20  # bytes that are unpacked whatever their packed size
MAX_RATIO = 100  # of more bytes than that to those in the file; texts pack to a fifth, names to a tenth


def check_table(path: Path, table: pq.FileMetaData) -> None:
    """Raises UserError for a column of a parquet file that unpacks to far more than is in the file."""
    for group in range(table.num_row_groups):
        for number in range(table.num_columns):
            column = table.row_group(group).column(number)
            size = column.total_uncompressed_size
            if size > max(SMALL, MAX_RATIO * column.total_compressed_size):
                raise UserError(
                    f"unpacks to {size:,} bytes, over {MAX_RATIO} times those in the file",
                    place=Place(str(path), field=column.path_in_schema),
                    value=size,
                    advice="write columns that repeat few texts with a dictionary, as pandas and pyarrow do.",
                )
