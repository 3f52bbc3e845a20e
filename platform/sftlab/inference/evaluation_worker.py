"""The engine side of an evaluation: plain methods of one engine, each free of what came before.

Ray wraps the class in `evaluator`. Every method that depends on weights takes them in itself, so that a retry
in a new process gives the same result.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np

from sftlab.facts.prompts import prompt_ids
from sftlab.inference.actors import DyingAfterMemory
from sftlab.inference.engine import EngineFactory, Floats, Ids, Prompt, WeightSource
from sftlab.inference.limits import WHOLE, BatchLimits, memory_told
from sftlab.inference.spec import EngineRuntime, EngineSpec
from sftlab.inference.vllm_engine import VllmEngine
from sftlab.measurements.answers import answer_facts
from sftlab.measurements.divergence_prompts import Candidate
from sftlab.measurements.spec import AnswerSpec
from sftlab.store.mirror import pull

if TYPE_CHECKING:
    import pyarrow as pa


class EvaluationWorker:
    """One engine, started from the base model's folder."""

    def __init__(
        self,
        model_dir: str,
        spec: AnswerSpec,
        engine_spec: EngineSpec,
        runtime: EngineRuntime,
        engine: EngineFactory = VllmEngine,
    ) -> None:
        self.spec, self.life = spec, DyingAfterMemory()
        self.engine = engine(pull(model_dir), engine_spec, runtime)
        # The same questions come back for every model; tokenising them anew would cost more than a swap.
        self.encode = lru_cache(maxsize=None)(self._encode)

    def evaluate(
        self,
        source: WeightSource,
        facts: Mapping[str, pa.Table],
        chosen: Sequence[Candidate],
        top: int,
        limits: BatchLimits = WHOLE,
    ) -> tuple[pa.Table, Ids, Floats]:
        """Answers of one model, and for the divergence ids and logits (n, top) of its first tokens.

        This and the other methods raise EngineMemoryError where a batch does not fit; start the worker anew then.
        """
        with self.life:
            self.engine.load_weights(source)
            answers = answer_facts(facts, self.engine, self.encode, self.spec, limits)
            found = [(np.empty((0, top), np.int64), np.empty((0, top), np.float32))]
            for piece in limits.pieces(chosen):
                with memory_told(_keys(piece)):
                    found.append(self.engine.first_token_top([self.encode(c.tuned_text) for c in piece], top))
            ids, logits = (np.concatenate(parts) for parts in zip(*found, strict=True))
            return answers, ids, logits

    def completions(
        self, source: WeightSource, found: Sequence[Candidate], limits: BatchLimits = WHOLE
    ) -> list[str | None]:
        """The base model's greedy completion of each candidate's template; None where a prompt is too long to ask."""
        with self.life:
            self.engine.load_weights(source)
            fitting = [i for i, candidate in enumerate(found) if self._fits(candidate)]
            texts: list[str | None] = [None] * len(found)
            for piece in limits.pieces(fitting):
                prompts = [Prompt(self.encode(found[i].base_text), found[i].accepted) for i in piece]
                with memory_told(_keys([found[i] for i in piece])):
                    completed = self.engine.answer(prompts, self.spec.max_tokens)
                for i, completion in zip(piece, completed, strict=True):
                    texts[i] = completion.text
            return texts

    def base_logits(
        self,
        source: WeightSource,
        chosen: Sequence[Candidate],
        token_ids: Sequence[Sequence[int]],
        limits: BatchLimits = WHOLE,
    ) -> list[Floats]:
        """The base model's first-token logits of each candidate at its own token ids."""
        with self.life:
            self.engine.load_weights(source)
            logits: list[Floats] = []
            for piece in limits.pieces(list(zip(chosen, token_ids, strict=True))):
                with memory_told(_keys([c for c, _ in piece])):
                    prompts = [self.encode(c.base_text) for c, _ in piece]
                    logits += self.engine.first_token_at(prompts, [ids for _, ids in piece])
            return logits

    def _fits(self, candidate: Candidate) -> bool:
        """Whether the engine has room for both prompts, each with what is generated after it."""
        base = len(self.encode(candidate.base_text)) + self.spec.max_tokens
        tuned = len(self.encode(candidate.tuned_text)) + 1  # of whose completion the first token is all
        return max(base, tuned) <= self.engine.max_model_len

    def _encode(self, text: str) -> tuple[int, ...]:
        return tuple(prompt_ids(self.engine.tokenizer, text))


def _keys(rows: Sequence[Candidate]) -> list[str]:
    return [f"divergence/{candidate.fact_id}" for candidate in rows]
