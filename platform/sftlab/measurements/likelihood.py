"""Log-likelihoods of continuations: choices of a benchmark, perplexity of texts, maps of models."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sftlab.inference.engine import Engine
from sftlab.inference.limits import WHOLE, BatchLimits, named_memory_errors
from sftlab.measurements.encoding import encode
from sftlab.measurements.spec import LikelihoodSpec

if TYPE_CHECKING:
    import pyarrow as pa


@dataclass(frozen=True)
class Continuation:
    """A text to score after a prompt.

    Attributes:
        key: unique name of the row.
        prompt, continuation: one text in two parts; a blank between them belongs to the continuation.
        bos: whether the tokenizer's beginning-of-sequence token comes first, if it has one. A text of a chat template
            has it already.
        closing: characters at the end of the continuation that are a special token and not text; `bytes` leaves them
            out.
    """

    key: str
    prompt: str
    continuation: str
    bos: bool = True
    closing: int = 0

    @property
    def text(self) -> str:
        """The continuation without its closing token."""
        return self.continuation[: len(self.continuation) - self.closing]


def likelihood_schema() -> pa.Schema:
    """Columns of the table.

    log_likelihood: sum over the tokens of the continuation, in nats. tokens, bytes: of the continuation; bytes of the
    UTF-8 form of its text. All three are null where `error` says why the row could not be scored.
    """
    import pyarrow as pa

    return pa.schema(
        [
            ("key", pa.string()),
            ("log_likelihood", pa.float64()),
            ("tokens", pa.int32()),
            ("bytes", pa.int32()),
            ("error", pa.string()),
        ]
    )


@dataclass(frozen=True)
class LogLikelihoods:
    """Log-likelihoods of continuations under one model. A `Measurement`; see `likelihood_schema` for its table."""

    rows: Sequence[Continuation]
    spec: LikelihoodSpec

    def measure(self, engine: Engine, limits: BatchLimits = WHOLE) -> pa.Table:
        import pyarrow as pa

        size = self.spec.block_rows
        blocks = [self.rows[start : start + size] for start in range(0, len(self.rows), size)]
        found = [row for block in blocks for row in _score_block(block, engine, limits)]
        return pa.Table.from_pylist(found, schema=likelihood_schema())


def _score_block(rows: Sequence[Continuation], engine: Engine, limits: BatchLimits) -> list[dict[str, Any]]:
    asked = [limits.refused.get(row.key) or _ask(row, engine) for row in rows]
    pairs = [(row, ids) for row, ids in zip(rows, asked, strict=True) if not isinstance(ids, str)]
    scores: dict[str, dict[str, Any]] = {}
    for piece in limits.pieces(pairs):
        contexts, continuations = ([ids[part] for _, ids in piece] for part in (0, 1))
        with named_memory_errors([row.key for row, _ in piece]):
            found = engine.log_likelihoods(contexts, continuations)
        for (row, _), logs in zip(piece, found, strict=True):
            size = len(row.text.encode())
            total = float(logs.sum(dtype="float64"))
            scores[row.key] = {"log_likelihood": total, "tokens": len(logs), "bytes": size}
    return [
        {"key": row.key, **({"error": ids} if isinstance(ids, str) else scores[row.key])}
        for row, ids in zip(rows, asked, strict=True)
    ]


def _ask(row: Continuation, engine: Engine) -> tuple[tuple[int, ...], tuple[int, ...]] | str:
    """Token ids of the prompt and of the continuation, or why the row cannot be scored."""
    if not row.continuation:
        return "continuation is empty"
    tokenizer = engine.tokenizer
    skipped = 1 if tokenizer.bos_token_id is not None and not row.bos else 0
    before = encode(tokenizer, row.prompt)[skipped:]
    both = encode(tokenizer, row.prompt + row.continuation)[skipped:]
    if not before:
        return "prompt has no tokens, and the first token of a text has no probability"
    if both[: len(before)] != before:
        return (
            "a token covers the end of the prompt and the beginning of the continuation; end the prompt without a "
            "blank, and begin the continuation with it"
        )
    if len(both) == len(before):
        return "continuation has no tokens"
    if len(both) >= engine.max_model_len:
        return f"too long: prompt and continuation take {len(both)} tokens, expected less than {engine.max_model_len}"
    return before, both[len(before) :]
