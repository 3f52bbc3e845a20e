"""Files of finished pieces: written whole or not at all, to the same bytes each time."""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING
from uuid import uuid4

from sftlab.files import make_folder, readable_write_errors
from sftlab.store.mirror import push
from sftlab.store.record import PART

if TYPE_CHECKING:
    import pyarrow as pa


def commit_table(
    table: pa.Table, path: Path, checksums: bool = False, before: Callable[[Path], None] | None = None
) -> None:
    """Write parquet under a temporary name and move it into place; into the object store too, if it is one.

    `checksums`: with a CRC32 of each page, for pieces that no record has the hash of. `before` is called with the
    finished file before it is moved.

    Raises UserError naming the file where the disk refuses it; then nothing stands at `path`.
    """
    import pyarrow.parquet as pq

    make_folder(path.parent)
    # Processes of several machines may write one block at a time, and have the same process id.
    draft = path.with_name(f".{path.name}.{uuid4().hex}{PART}")
    try:
        with readable_write_errors(path):
            pq.write_table(table, draft, write_page_checksum=checksums)
            with draft.open("rb") as file:
                os.fsync(file.fileno())
            if before is not None:
                before(draft)
            draft.replace(path)
        push(path)
    finally:
        with suppress(OSError):  # mostly it is gone; a read-only disk refuses even that
            draft.unlink()
