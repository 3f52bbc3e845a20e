"""The result tables of a study: what the summary stage fills, and what tracking and the report read."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sftlab.analysis.accuracy import BucketAccuracy, PairedBucket, mean_of_buckets
from sftlab.store.rows import read_rows, read_summary, schema_of

if TYPE_CHECKING:
    import pyarrow as pa


BASE = "base"
SPLITS = ("dev", "dev_ood", "test", "test_ood", "train_set")
STUDY_FILE = "study.json"
FORMAT = 1


@dataclass(frozen=True)
class CellRow:
    """One fine-tuning run: a cell of the grid of training sets."""

    cell: str
    train_bucket: str  # "0".."4" or "mixed"
    size: int  # training facts
    set_seed: int
    tokens_per_second: float | None = None
    seconds: float | None = None


@dataclass(frozen=True)
class AccuracyRow:
    """Accuracy of one model on one split and bucket. The base model: cell "base", no percent, no set.

    `bucket` None is the mean of the non-empty buckets; `questions` and `correct` are then the sums, and
    `empty_buckets` says how many of the five had no question. An empty bucket has no row of its own.
    """

    cell: str
    train_bucket: str | None
    size: int | None
    set_seed: int | None
    percent: float | None  # restored, 0 is the tuned model
    split: str  # one of SPLITS
    bucket: int | None
    questions: int
    correct: int
    accuracy: float  # share in [0, 1]
    empty_buckets: int = 0


@dataclass(frozen=True)
class PairedRow:
    """Answers that a restored model changed against the tuned model (0 %) of its cell."""

    cell: str
    percent: float
    split: str
    bucket: int
    questions: int
    gained: int
    lost: int


@dataclass(frozen=True)
class DivergenceRow:
    """Mean first-token KL(tuned || base) in nats over `facts` bucket-4 test facts."""

    cell: str
    percent: float
    facts: int
    kl: float


@dataclass(frozen=True)
class ConcentrationRow:
    """Share in [0, 1] of all relative change that the top `top_percent` % of the weights hold."""

    cell: str
    top_percent: float
    share: float


@dataclass(frozen=True)
class DistributionRow:
    """Share in [0, 1] of the weights restored at `percent` % that are in one layer or module; of all at 100 %."""

    cell: str
    percent: float
    kind: str  # "layer" or "module"
    name: str
    share: float


@dataclass(frozen=True)
class MasteryRow:
    """Facts of one bucket of a split; bucket None: facts whose mastery could not be scored.

    `errors` counts those of the row that carry an error message.
    """

    split: str
    bucket: int | None
    facts: int
    errors: int = 0


@dataclass(frozen=True)
class TrainingRow:
    """One optimizer step of a fine-tuning run."""

    cell: str
    step: int
    loss: float
    learning_rate: float


@dataclass(frozen=True)
class ChoiceRow:
    """A restore percentage chosen on the dev splits, and what it does on the test splits.

    scope "cell": of one cell; "common": one percentage for all cells, figures are means over the cells and
    `cell` is None; "recommended": the best cell with its percentage. `dev` is the score that chose:
    the mean of the dev and dev_ood accuracies. `*_tuned`: the same at 0 %. Shares in [0, 1].
    """

    scope: str
    cell: str | None
    percent: float
    dev: float
    dev_tuned: float
    test: float | None
    test_tuned: float | None
    test_ood: float | None
    test_ood_tuned: float | None
    questions: int  # asked on test and test_ood
    collapse_percent: float | None = None


# Table name -> row type; the name is the field of StudyResults and the stem of the parquet file.
TABLES: dict[str, type[Any]] = {
    "cells": CellRow,
    "accuracy": AccuracyRow,
    "paired": PairedRow,
    "divergence": DivergenceRow,
    "concentration": ConcentrationRow,
    "distribution": DistributionRow,
    "mastery": MasteryRow,
    "training": TrainingRow,
    "choice": ChoiceRow,
}


@dataclass(frozen=True)
class StudyResults:
    """All results of one study. `spec` and `provenance` must be JSON; every table may be empty."""

    name: str
    model: str
    spec: Mapping[str, Any] = field(default_factory=dict)
    provenance: Mapping[str, Any] = field(default_factory=dict)
    cells: Sequence[CellRow] = ()
    accuracy: Sequence[AccuracyRow] = ()
    paired: Sequence[PairedRow] = ()
    divergence: Sequence[DivergenceRow] = ()
    concentration: Sequence[ConcentrationRow] = ()
    distribution: Sequence[DistributionRow] = ()
    mastery: Sequence[MasteryRow] = ()
    training: Sequence[TrainingRow] = ()
    choice: Sequence[ChoiceRow] = ()

    def table(self, name: str) -> pa.Table:
        """One of TABLES as an Arrow table with the schema of its row type."""
        import pyarrow as pa

        return pa.Table.from_pylist([vars(row) for row in getattr(self, name)], schema=schema(name))

    def write(self, directory: Path) -> None:
        """Write study.json and one parquet file a table; the same results give the same bytes."""
        import pyarrow.parquet as pq

        directory.mkdir(parents=True, exist_ok=True)
        for name in TABLES:
            pq.write_table(self.table(name), directory / f"{name}.parquet")
        study = {"format": FORMAT, "name": self.name, "model": self.model}
        study |= {"spec": self.spec, "provenance": self.provenance}
        text = json.dumps(study, indent=1, sort_keys=True, ensure_ascii=False, allow_nan=False)
        (directory / STUDY_FILE).write_text(text + "\n", encoding="utf-8")

    @classmethod
    def read(cls, directory: Path) -> StudyResults:
        """Read what `write` wrote. Raises UserError naming the file that is missing or not a result table."""
        study = read_summary(directory / STUDY_FILE, "study", FORMAT, {"name", "model", "spec", "provenance"})
        tables = {name: read_rows(directory / f"{name}.parquet", kind) for name, kind in TABLES.items()}
        return cls(study["name"], study["model"], study["spec"], study["provenance"], **tables)


def schema(name: str) -> pa.Schema:
    """Arrow schema of one of TABLES."""
    return schema_of(TABLES[name])


def accuracy_rows(
    cell: CellRow | None, percent: float | None, split: str, buckets: Sequence[BucketAccuracy]
) -> list[AccuracyRow]:
    """The rows of one model on one split: a row for every bucket with questions, then their mean.

    Args:
        cell: the run whose model answered; None for the base model, whose `percent` is None too.
        percent: share of the weights restored; 0 is the tuned model.
        buckets: as `accuracy_by_bucket` gives them.
    """
    assert split in SPLITS and (cell is None) == (percent is None)
    mean = mean_of_buckets(buckets)

    def row(bucket: int | None, questions: int, correct: int, accuracy: float, empty: int = 0) -> AccuracyRow:
        return AccuracyRow(
            cell=cell.cell if cell else BASE,
            train_bucket=cell.train_bucket if cell else None,
            size=cell.size if cell else None,
            set_seed=cell.set_seed if cell else None,
            percent=percent,
            split=split,
            bucket=bucket,
            questions=questions,
            correct=correct,
            accuracy=accuracy,
            empty_buckets=empty,
        )

    asked = [row(b.bucket, b.questions, b.correct, b.accuracy) for b in buckets if b.accuracy is not None]
    return [*asked, row(None, mean.questions, mean.correct, mean.accuracy, len(mean.empty))]


def paired_rows(cell: str, percent: float, split: str, buckets: Sequence[PairedBucket]) -> list[PairedRow]:
    """The rows of one restored model on one split, from `paired_by_bucket(tuned, restored, ...)`."""
    return [PairedRow(cell, percent, split, b.bucket, b.questions, b.gained, b.lost) for b in buckets]
