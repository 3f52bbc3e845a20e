"""What happens when an engine runs out of memory: smaller batches, and in the end an error in the row.

An engine that ran out of memory is in an unknown state and is restarted. A smaller batch may move the last bits of its
logits, so that batches are cut only where necessary.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import TypeVar

from sftlab.cluster.out_of_memory import is_out_of_memory
from sftlab.errors import UserError

Row = TypeVar("Row")

CUT = 16  # a batch that did not fit is cut to this share: every try costs an engine's start
RUNNING = 256  # rows that an engine holds at a time by default; cutting to more would change nothing
MOST_REFUSED = 3  # rows that do not even fit alone; with more than these the engine itself is too large


class EngineMemoryError(Exception):
    """An engine ran out of memory over a batch of rows, named by `keys`; it must be restarted."""

    def __init__(self, keys: Sequence[str], reason: str) -> None:
        super().__init__(tuple(keys), reason)
        self.keys, self.reason = tuple(keys), reason


@dataclass(frozen=True)
class BatchLimits:
    """How many rows one call to an engine may cover (None: all of a block), and which rows do not fit even alone."""

    rows: int | None = None
    refused: Mapping[str, str] = field(default_factory=dict)

    def pieces(self, rows: Sequence[Row]) -> list[Sequence[Row]]:
        """The rows in calls of the allowed size; none of no rows."""
        size = self.rows or max(1, len(rows))
        return [rows[start : start + size] for start in range(0, len(rows), size)]

    def after(self, error: EngineMemoryError) -> BatchLimits:
        """The limits for the next try. Raises UserError where no smaller batch is left to try."""
        if len(error.keys) > 1:
            return replace(self, rows=max(1, min(len(error.keys), RUNNING) // CUT))
        (key,) = error.keys
        if key in self.refused or len(self.refused) == MOST_REFUSED:
            raise UserError(
                f"an engine ran out of memory even over single questions ({error.reason})",
                advice=(
                    "lower engine.max_num_seqs, engine.max_model_len or engine.gpu_memory_utilization, give it more "
                    "GPUs by engine.tensor_parallel and engine.gpus_per_engine, or lower engine.engines; what is "
                    "finished is kept."
                ),
            ) from error
        return replace(self, refused={**self.refused, key: f"the engine ran out of memory: {error.reason}"})


WHOLE = BatchLimits()


@contextmanager
def named_memory_errors(keys: Sequence[str]) -> Iterator[None]:
    """Turns the engine's out-of-memory errors over a batch of rows into an EngineMemoryError."""
    try:
        yield
    except Exception as error:
        if not is_out_of_memory(error):
            raise
        raise EngineMemoryError(keys, (str(error).strip() or type(error).__name__).splitlines()[0]) from error
