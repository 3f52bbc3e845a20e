"""Inputs and tables of the first-token divergence."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from sftlab.facts.templates import Topic
from sftlab.inference.engine import Floats, Ids, WeightSource
from sftlab.measurements.divergence_prompts import Candidate
from sftlab.measurements.spec import DivergenceSpec

if TYPE_CHECKING:
    import pyarrow as pa

    from sftlab.inference.evaluator import EvaluationItem


SELECTION = "divergence_facts.parquet"


@dataclass(frozen=True)
class DivergenceInput:
    """What the first-token divergence needs beside the tuned models.

    Attributes:
        spec: how facts are chosen and how many tokens are compared.
        facts: test facts.
        mastery: their rows of the mastery table, in the same order.
        topics: the mapping templates.
        base: the base model's tensors.
    """

    spec: DivergenceSpec
    facts: pa.Table
    mastery: pa.Table
    topics: Mapping[str, Topic]
    base: WeightSource


def tuned_path(session_dir: Path, item: EvaluationItem) -> Path:
    """Where a session keeps the first-token logits of an item until the base model's come."""
    assert re.fullmatch(r"[A-Za-z0-9._-]+", item.id), f"not a file name: {item.id!r}"
    return session_dir / "tuned" / f"{item.id}.parquet"


def _rows(rows: Sequence[Sequence[float]], width: int) -> Floats:
    return np.array(rows, np.float32).reshape(-1, width)


def _logits_table(chosen: Sequence[Candidate], ids: Ids, logits: Mapping[str, Floats]) -> pa.Table:
    """fact_id, token_ids list<int32>, and a list<float32> column for every entry of `logits`."""
    import pyarrow as pa

    columns = {
        "fact_id": pa.array([candidate.fact_id for candidate in chosen], pa.string()),
        "token_ids": pa.array(ids.tolist(), pa.list_(pa.int32())),
    }
    floats = pa.list_(pa.float32())
    return pa.table(columns | {name: pa.array(rows.tolist(), floats) for name, rows in logits.items()})
