"""Files of finished pieces: written whole or not at all, to the same bytes each time."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pyarrow as pa


def commit_table(table: pa.Table, path: Path) -> None:
    """Write parquet under a temporary name and move it into place.

    Raises OSError (a full disk, say); then nothing stands at `path`.
    """
    import pyarrow.parquet as pq

    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        pq.write_table(table, draft)
        with draft.open("rb") as file:
            os.fsync(file.fileno())
        draft.replace(path)
    finally:
        draft.unlink(missing_ok=True)
