"""What studies, sweeps and surveys say to MLflow, as plain data: independent of MLflow and of how it is computed."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

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
class ParentRecord:
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
    kind: str = "sweep"  # "study", or "survey"

    @property
    def tag(self) -> str:
        """The tag that holds its key."""
        return f"sftlab.{self.kind}"

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


@dataclass(frozen=True)
class TrackedModel:
    """One model of a study, as the store knows it.

    Args:
        id: content hash of the committed result that it is; the run is found again by it.
        cell: name of its cell; None for the base model.
        percent: restored share in percent, 0 for the tuned model; None for the base model.
        path: its Hugging Face folder; None where it exists as *base + tuned + percent* alone.
        train_set: what it was trained on.
        provenance: as the store's record holds it; `time` (ISO 8601) becomes the run's time.
        params: further parameters to show, by name; the cell, percentage and spec are shown anyway.
    """

    id: str
    cell: str | None = None
    percent: float | None = None
    path: Path | None = None
    train_set: TrackedTable | None = None
    provenance: Mapping[str, str] = field(default_factory=dict)
    params: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        assert (self.cell is None) == (self.percent is None), "a cell's model has a percentage, the base none"

    @property
    def kind(self) -> str:
        if self.percent is None:
            return "base"
        return "restored" if self.percent else "tuned"


def provenance_tags(provenance: Mapping[str, Any]) -> dict[str, str]:
    tags = {f"provenance.{key}": as_text(value) for key, value in provenance.items()}
    if commit := str(provenance.get("commit", "")):
        tags["mlflow.source.git.commit"] = commit.split("+")[0]
    return tags


def time_ms(time: str | None) -> int | None:
    return int(datetime.fromisoformat(time).timestamp() * 1000) if time else None


def flat(prefix: str, values: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """Nested fields as `prefix.field`; what is None has none, as in the ids."""
    for key, value in values.items():
        if isinstance(value, Mapping):
            yield from flat(f"{prefix}.{key}", value)
        elif value is not None:
            yield f"{prefix}.{key}", value


def as_text(value: Any) -> str:
    return value if isinstance(value, str) else json_text(value)


def json_text(value: Any) -> str:
    return json.dumps(value, sort_keys=True, ensure_ascii=False, default=str)


@dataclass(frozen=True)
class LadderModel:
    """One logged model of a trial; `step` is its place on the x-axis of the run's charts: a percentage, or an epoch."""

    artifact: str
    name: str
    kind: str
    params: Mapping[str, str]
    metrics: Sequence[MetricRow]
    step: int
    path: Path | None = None


@dataclass(frozen=True)
class TrialRecord:
    """A run with the logged models of its ladder; the base model's run has none.

    key: what the run is found again by. metrics: of the run alone. It was finished at `end_ms` (since 1970,
    UTC; None: now) after `seconds` of training.
    """

    key: str
    name: str
    kind: str
    params: Mapping[str, str]
    tags: Mapping[str, str]
    metrics: Sequence[MetricRow]
    tables: Sequence[TrackedTable]
    models: Sequence[LadderModel] = ()
    end_ms: int | None = None
    seconds: float = 0.0

    def digest(self) -> str:
        """Hash of everything that a reader compares: equal digests need no second logging."""
        models = [[m.artifact, m.name, m.kind, m.params, m.metrics, m.step] for m in self.models]
        return digest_of(self.name, self.kind, self.params, self.metrics, self.tables, models)
