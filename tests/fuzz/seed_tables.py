"""Small valid tables that stages write, made by their schemas."""

from __future__ import annotations

import io
from typing import Any

MASTERY: list[dict[str, Any]] = [
    {"fact_id": "0", "topic": "P1", "hits": [1, 0], "samples": 2, "r": 0.25, "bucket": 1, "tokens": 9, "error": None},
    {"fact_id": "1", "topic": "P2", "hits": None, "samples": 2, "r": None, "bucket": None, "tokens": 0, "error": "e"},
]  # fmt: skip


def mastery_block(rows: list[dict[str, Any]], typed: bool) -> bytes:
    """A finished block of scored facts; its columns have their own types, or whichever the values have."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    from sftlab.measurements.mastery import mastery_schema

    out, schema = io.BytesIO(), mastery_schema() if typed else None
    pq.write_table(pa.Table.from_pylist(rows, schema=schema), out, write_page_checksum=True)
    return out.getvalue()


ANSWERS: list[dict[str, Any]] = [
    {"fact_id": "0", "split": "test", "answer": "Latvia", "correct": True, "tokens": 2, "error": None},
    {"fact_id": "1", "split": "dev", "answer": None, "correct": None, "tokens": 0, "error": "too long"},
]


LOGITS: list[dict[str, Any]] = [
    {"fact_id": str(row), "token_ids": [3, 1], "tuned_logits": [1.5, 0.5], "base_logits": [0.25, -1.0]}
    for row in range(2)
]


def answers_table(rows: list[dict[str, Any]], typed: bool) -> bytes:
    """Answers of a model, with their own types, or with whichever the values have."""
    from sftlab.measurements.answers import answer_schema

    return _table(rows, answer_schema() if typed else None)


def logits_table(rows: list[dict[str, Any]], typed: bool) -> bytes:
    """Logits of a divergence, with their own types, or with whichever the values have."""
    import pyarrow as pa

    floats = pa.list_(pa.float32())
    kinds = {
        "fact_id": pa.string(),
        "token_ids": pa.list_(pa.int32()),
        "tuned_logits": floats,
        "base_logits": floats,
    }
    return _table(rows, pa.schema(kinds) if typed else None)


def mastery_table(rows: list[dict[str, Any]], typed: bool) -> bytes:
    """A table of mastery, with its own types, or with whichever the values have."""
    import pyarrow as pa

    from sftlab.measurements.mastery import mastery_schema

    return _table(rows, pa.schema([("split", pa.string()), *mastery_schema()]) if typed else None)


def _table(rows: list[dict[str, Any]], schema: Any) -> bytes:
    import pyarrow as pa
    import pyarrow.parquet as pq

    out = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(rows, schema=schema), out)
    return out.getvalue()
