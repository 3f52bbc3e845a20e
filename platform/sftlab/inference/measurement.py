"""What an evaluation measures of a model: the protocols that a new measurement implements.

A `Measurement` runs on one engine and returns a table. A `Comparison` also needs the base model, before and after it
measures the others. The evaluator swaps weights, retries and commits the tables; it knows no measurement by name.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from sftlab.inference.engine import Engine, WeightSource
from sftlab.inference.limits import WHOLE, BatchLimits

if TYPE_CHECKING:
    import pyarrow as pa


class Measurement(Protocol):
    """One table of one model. Picklable: the evaluator sends it to the processes of the engines."""

    def measure(self, engine: Engine, limits: BatchLimits = WHOLE) -> pa.Table:
        """The table, from an engine that holds the model's weights.

        Calls the engine with batches of `limits.pieces(rows)`, each inside `named_memory_errors(keys)` with a unique
        key for each row, and leaves out the rows in `limits.refused`. Then a batch that exceeds the engine's memory
        is repeated in smaller batches.
        """


AskBase = Callable[[Measurement], "pa.Table"]
"""Measures the base model on an engine."""


class Comparison(Protocol):
    """One table for each of many models, compared with their base model. It runs in the driver."""

    @property
    def file(self) -> str:
        """Name of the table in the folder of each model's results."""

    @property
    def session_file(self) -> str:
        """Name of the table of `prepare` in the folder of the session."""

    @property
    def base(self) -> WeightSource:
        """Tensors of the base model."""

    def prepare(self, ask: AskBase) -> pa.Table:
        """What the models' measurement depends on. Computed once in a session."""

    def measurement(self, prepared: Path) -> Measurement:
        """The measurement of every model, given the file of `prepare`."""

    def finish(self, prepared: Path, measured: Sequence[Path], ask: AskBase) -> Iterator[pa.Table]:
        """The results of the models, given the files of `measurement`, in their order."""
