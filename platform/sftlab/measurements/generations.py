"""Greedy completions of conversations that were made elsewhere, such as the requests of lm-eval."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import TYPE_CHECKING, Any

from sftlab.datasets.conversations import Conversation
from sftlab.datasets.spec import TemplateSpec
from sftlab.inference.engine import Completion, Engine, Prompt
from sftlab.inference.limits import WHOLE, BatchLimits, named_memory_errors
from sftlab.measurements.benchmarks import template_encoder

if TYPE_CHECKING:
    import pyarrow as pa

BLOCK = 4096  # rows of one call to the engine


@dataclass(frozen=True)
class Asked:
    """A conversation that waits for its response.

    Attributes:
        key: unique name of the row.
        until: the response ends before the first of these texts.
        max_tokens: longest response, in tokens.
    """

    key: str
    conversation: Conversation
    until: tuple[str, ...]
    max_tokens: int


def generation_schema() -> pa.Schema:
    """Columns of the table; `text` and `tokens` are null where `error` says why there is no response."""
    import pyarrow as pa

    return pa.schema(
        [("key", pa.string()), ("text", pa.string()), ("tokens", pa.int32()), ("error", pa.string())]
    )


@dataclass(frozen=True)
class Generations:
    """Greedy responses of one model. A `Measurement`; see `generation_schema` for its table."""

    rows: Sequence[Asked]
    template: TemplateSpec

    def measure(self, engine: Engine, limits: BatchLimits = WHOLE) -> pa.Table:
        """One row for every conversation, in order."""
        import pyarrow as pa

        found: list[dict[str, Any]] = []
        for longest, rows in groupby(self.rows, key=lambda row: row.max_tokens):
            same = list(rows)
            for start in range(0, len(same), BLOCK):
                found += self._block(same[start : start + BLOCK], longest, engine, limits)
        return pa.Table.from_pylist(found, schema=generation_schema())

    def _block(
        self, rows: Sequence[Asked], longest: int, engine: Engine, limits: BatchLimits
    ) -> list[dict[str, Any]]:
        asked = [limits.refused.get(row.key) or self._ask(row, engine) for row in rows]
        prompts = [(row.key, ask) for row, ask in zip(rows, asked, strict=True) if isinstance(ask, Prompt)]
        completions: list[Completion] = []
        for piece in limits.pieces(prompts):
            with named_memory_errors([key for key, _ in piece]):
                completions += engine.answer([ask for _, ask in piece], longest)
        answers = iter(completions)
        return [
            _answered(row, next(answers)) if isinstance(ask, Prompt) else {"key": row.key, "error": ask}
            for row, ask in zip(rows, asked, strict=True)
        ]

    def _ask(self, row: Asked, engine: Engine) -> Prompt | str:
        """The prompt of a row, or why it cannot be asked."""
        ids = template_encoder(engine.tokenizer, self.template).encode_prompt(row.conversation)
        needed = len(ids) + row.max_tokens
        if needed > engine.max_model_len:
            return f"too long: prompt and answer take {needed} tokens of {engine.max_model_len}"
        return Prompt(ids, row.until)


def before_any(text: str, until: Sequence[str]) -> str:
    """A text up to the first of these texts; empty ones end nothing."""
    for end in until:
        if end:
            text = text.split(end)[0]
    return text


def _answered(row: Asked, answer: Completion) -> dict[str, Any]:
    return {"key": row.key, "text": before_any(answer.text, row.until), "tokens": answer.tokens}
