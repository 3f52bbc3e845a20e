"""First-token divergence: a `Comparison` of tuned models with their base model (paper, section 4.1).

1. The base model completes the templates of the mastered facts once a session; facts that it answers near the start are
   compared.
2. Every model reports its largest first-token logits for these facts.
3. The base model reports its logits at the union of these tokens over all models, in one pass.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from sftlab.facts.templates import Topic
from sftlab.inference.engine import Engine, Floats, Ids, Prompt, WeightSource
from sftlab.inference.limits import WHOLE, BatchLimits, named_memory_errors
from sftlab.inference.measurement import AskBase
from sftlab.measurements.divergence_prompts import Candidate, answers_near_start, candidates
from sftlab.measurements.encoding import encode
from sftlab.measurements.spec import DivergenceSpec
from sftlab.measurements.tables import read_completions, read_logits

if TYPE_CHECKING:
    import pyarrow as pa


DIVERGENCE = "divergence.parquet"
SELECTION = "divergence_facts.parquet"


@dataclass(frozen=True)
class FirstTokenDivergence:
    """Largest first-token logits of each model, and those of the base model at the same tokens.

    Attributes:
        spec: how facts are chosen and how many tokens are compared.
        max_tokens: longest completion of the base model.
        facts: test facts.
        mastery: their rows of the mastery table, in the same order.
        topics: the mapping templates.
        base: the base model's tensors.
    """

    spec: DivergenceSpec
    max_tokens: int
    facts: pa.Table
    mastery: pa.Table
    topics: Mapping[str, Topic]
    base: WeightSource

    file = DIVERGENCE
    session_file = SELECTION

    def prepare(self, ask: AskBase) -> pa.Table:
        """fact_id, template and the base model's completion of every mastered fact.

        Raises UserError where the mastery table does not belong to the facts.
        """
        return (
            ask(BaseCompletions(self._mastered, self.max_tokens))
            if self._mastered
            else _completions_table([], [])
        )

    def measurement(self, prepared: Path) -> FirstTokens:
        return FirstTokens(self._chosen(prepared), self.spec.top)

    def finish(self, prepared: Path, measured: Sequence[Path], ask: AskBase) -> Iterator[pa.Table]:
        """fact_id, token_ids, tuned_logits and base_logits of every model."""
        chosen, top = self._chosen(prepared), self.spec.top
        tuned = [read_logits(path, ("tuned_logits",), top, len(chosen)) for path in measured]
        ids = [table["token_ids"].to_pylist() for table in tuned]
        union = [sorted({token for rows in ids for token in rows[i]}) for i in range(len(chosen))]
        found = ask(BaseLogits(chosen, union))["base_logits"].to_pylist() if chosen else []
        at = [dict(zip(tokens, row, strict=True)) for tokens, row in zip(union, found, strict=True)]
        for table, tokens in zip(tuned, ids, strict=True):
            base = [[at[i][token] for token in row] for i, row in enumerate(tokens)]
            columns = {"tuned_logits": table["tuned_logits"].to_pylist(), "base_logits": base}
            logits = {name: np.array(rows, np.float32).reshape(-1, top) for name, rows in columns.items()}
            yield _logits_table(chosen, np.array(tokens, np.int64).reshape(-1, top), logits)

    @cached_property
    def _mastered(self) -> list[Candidate]:
        return candidates(
            self.facts.to_pylist(), self.mastery.to_pylist(), self.topics, self.spec.same_prompt
        )

    def _chosen(self, prepared: Path) -> list[Candidate]:
        """The facts to compare: those whose prompts fit, and which the base model answers near the start."""
        completions = read_completions(prepared, len(self._mastered))
        return [
            candidate
            for candidate, completion in zip(self._mastered, completions, strict=True)
            if completion is not None
            and answers_near_start(completion, candidate.accepted, self.spec.answer_within)
        ]


@dataclass(frozen=True)
class BaseCompletions:
    """Greedy completions of the candidates' templates; null where a prompt exceeds the engine's context."""

    found: Sequence[Candidate]
    max_tokens: int

    def measure(self, engine: Engine, limits: BatchLimits = WHOLE) -> pa.Table:
        fitting = [i for i, candidate in enumerate(self.found) if self._fits(candidate, engine)]
        texts: list[str | None] = [None] * len(self.found)
        for piece in limits.pieces(fitting):
            rows = [self.found[i] for i in piece]
            prompts = [Prompt(encode(engine.tokenizer, row.base_text), row.accepted) for row in rows]
            with named_memory_errors(_keys(rows)):
                completed = engine.answer(prompts, self.max_tokens)
            for i, completion in zip(piece, completed, strict=True):
                texts[i] = completion.text
        return _completions_table(self.found, texts)

    def _fits(self, candidate: Candidate, engine: Engine) -> bool:
        """Whether the engine has room for both prompts, each with what is generated after it."""
        base = len(encode(engine.tokenizer, candidate.base_text)) + self.max_tokens
        tuned = len(encode(engine.tokenizer, candidate.tuned_text)) + 1  # only the first token is generated
        return max(base, tuned) <= engine.max_model_len


@dataclass(frozen=True)
class FirstTokens:
    """fact_id, token_ids and tuned_logits of the `top` largest first-token logits, the largest first."""

    chosen: Sequence[Candidate]
    top: int

    def measure(self, engine: Engine, limits: BatchLimits = WHOLE) -> pa.Table:
        found = [(np.empty((0, self.top), np.int64), np.empty((0, self.top), np.float32))]
        for piece in limits.pieces(self.chosen):
            with named_memory_errors(_keys(piece)):
                prompts = [encode(engine.tokenizer, candidate.tuned_text) for candidate in piece]
                found.append(engine.first_token_top(prompts, self.top))
        ids, logits = (np.concatenate(parts) for parts in zip(*found, strict=True))
        return _logits_table(self.chosen, ids, {"tuned_logits": logits})


@dataclass(frozen=True)
class BaseLogits:
    """base_logits: the first-token logits of each candidate's template at its `token_ids`."""

    chosen: Sequence[Candidate]
    token_ids: Sequence[Sequence[int]]

    def measure(self, engine: Engine, limits: BatchLimits = WHOLE) -> pa.Table:
        import pyarrow as pa

        logits: list[Floats] = []
        for piece in limits.pieces(list(zip(self.chosen, self.token_ids, strict=True))):
            with named_memory_errors(_keys([candidate for candidate, _ in piece])):
                prompts = [encode(engine.tokenizer, candidate.base_text) for candidate, _ in piece]
                logits += engine.first_token_at(prompts, [ids for _, ids in piece])
        return pa.table({"base_logits": pa.array(logits, pa.list_(pa.float32()))})


def _keys(rows: Sequence[Candidate]) -> list[str]:
    return [f"divergence/{candidate.fact_id}" for candidate in rows]


def _completions_table(found: Sequence[Candidate], texts: Sequence[str | None]) -> pa.Table:
    import pyarrow as pa

    columns = {
        "fact_id": pa.array([candidate.fact_id for candidate in found], pa.string()),
        "template": pa.array([candidate.template for candidate in found], pa.int32()),
        "completion": pa.array(texts, pa.string()),
    }
    return pa.table(columns)


def _logits_table(chosen: Sequence[Candidate], ids: Ids, logits: Mapping[str, Floats]) -> pa.Table:
    """fact_id, token_ids list<int32>, and a list<float32> column for every entry of `logits`."""
    import pyarrow as pa

    columns = {
        "fact_id": pa.array([candidate.fact_id for candidate in chosen], pa.string()),
        "token_ids": pa.array(ids.tolist(), pa.list_(pa.int32())),
    }
    floats = pa.list_(pa.float32())
    return pa.table(columns | {name: pa.array(rows.tolist(), floats) for name, rows in logits.items()})
