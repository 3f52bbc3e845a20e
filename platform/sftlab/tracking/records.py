"""What one study says to MLflow, as plain data: independent of MLflow and of how results are computed."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from sftlab.store.fingerprint import file_hash
from sftlab.tracking import names

SIGNIFICANT = 6
_MLFLOW_TYPES = {"int32": "integer", "int64": "long", "float": "float", "double": "double", "bool": "boolean"}


@dataclass(frozen=True)
class TrackedTable:
    """A data table that models were trained or measured on.

    `digest` is the content hash of the table; `columns` maps a column's name to its type.
    """

    name: str
    digest: str
    path: str
    rows: int
    columns: Mapping[str, str] = field(default_factory=dict)
    context: str = "evaluation"

    @property
    def short_digest(self) -> str:
        """What MLflow shows; it keeps at most 36 characters."""
        return self.digest[:12]


@dataclass(frozen=True)
class MetricRow:
    """One number; `table` names the data table that it was measured on.

    A point of a training `curve` belongs to the run alone, not to the model.
    """

    key: str
    value: float
    step: int = 0
    table: str | None = None
    curve: bool = False


@dataclass(frozen=True)
class ModelRecord:
    """A child run and, unless it is the base, a logged model.

    `artifact` is the content hash that the model is found again by. `path` is where its files lie, or None
    where the model exists as *base + tuned + percent* alone. It was finished at `end_ms` (since 1970, UTC;
    None: now) after `seconds` of work.
    """

    artifact: str
    name: str
    kind: str
    params: Mapping[str, str]
    tags: Mapping[str, str]
    metrics: Sequence[MetricRow]
    tables: Sequence[TrackedTable]
    path: Path | None = None
    end_ms: int | None = None
    seconds: float = 0.0

    def digest(self) -> str:
        """Hash of everything that a reader compares: equal digests need no second logging."""
        return digest_of(self.name, self.kind, self.params, self.metrics, self.tables)


@dataclass(frozen=True)
class StudyRecord:
    """The parent run: `key` is what it is found again by, `note` its description in Markdown."""

    key: str
    name: str
    params: Mapping[str, str]
    tags: Mapping[str, str]
    metrics: Sequence[MetricRow]
    tables: Sequence[TrackedTable]
    note: str = ""
    report: Path | None = None
    best: str | None = None

    def digest(self) -> str:
        report = hashlib.sha256(self.report.read_bytes()).hexdigest() if self.report else None
        return digest_of(self.name, self.metrics, self.tables, self.note, report, self.best)


def table_of(path: Path, name: str | None = None, context: str = "evaluation") -> TrackedTable:
    """A parquet file as a tracked table: rows and columns from its footer, digest of its bytes."""
    import pyarrow.parquet as pq

    schema = pq.read_schema(path)
    columns = {field.name: _MLFLOW_TYPES.get(str(field.type), "string") for field in schema}
    rows = pq.read_metadata(path).num_rows
    return TrackedTable(name or path.stem, file_hash(path), str(path), rows, columns, context)


def metric_rows(values: Mapping[str, float | None], table: str | None = None) -> list[MetricRow]:
    """Rows at step 0 with accepted names; what is None or not finite has no row.

    Values keep SIGNIFICANT digits, as MLflow's tables show all that they are given (0.09999999999999998).
    """
    return [
        MetricRow(names.key(key), rounded(value), 0, table)
        for key, value in values.items()
        if value is not None and math.isfinite(value)
    ]


def rounded(value: float) -> float:
    """`value` with SIGNIFICANT digits; whole numbers as they are."""
    return float(value) if float(value).is_integer() else float(f"{value:.{SIGNIFICANT}g}")


def digest_of(*parts: object) -> str:
    """Hash of plain data and of the records of this module."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True, default=_plain).encode()).hexdigest()


def _plain(value: object) -> object:
    if isinstance(value, MetricRow):
        return [value.key, value.value, value.step, value.table, value.curve]
    if isinstance(value, TrackedTable):
        return [value.name, value.digest]
    if isinstance(value, Mapping):
        return dict(value)
    raise TypeError(f"{type(value).__name__} has no place in a tracked record")
