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
from sftlab.inference.actors import DyingWithEngine
from sftlab.inference.answers import answer_facts
from sftlab.inference.divergence_prompts import Candidate
from sftlab.inference.engine import Engine, Floats, Ids, Prompt, WeightSource
from sftlab.inference.spec import AnswerSpec, EngineRuntime, EngineSpec

if TYPE_CHECKING:
    import pyarrow as pa


class EvaluationWorker:
    """One engine, started from the base model's folder."""

    def __init__(
        self, model_dir: str, spec: AnswerSpec, engine_spec: EngineSpec, runtime: EngineRuntime
    ) -> None:
        from sftlab.inference.vllm_engine import VllmEngine

        self.spec = spec
        self.engine: Engine = VllmEngine(model_dir, engine_spec, runtime)
        # The same questions come back for every model; tokenising them anew would cost more than a swap.
        self.encode = lru_cache(maxsize=None)(self._encode)

    def evaluate(
        self, source: WeightSource, facts: Mapping[str, pa.Table], chosen: Sequence[Candidate], top: int
    ) -> tuple[pa.Table, Ids, Floats]:
        """Answers of one model, and for the divergence ids and logits (n, top) of its first tokens."""
        with DyingWithEngine():
            self.engine.load_weights(source)
            answers = answer_facts(facts, self.engine, self.encode, self.spec)
            ids, logits = np.empty((0, top), np.int64), np.empty((0, top), np.float32)
            if chosen:
                ids, logits = self.engine.first_token_top([self.encode(c.tuned_text) for c in chosen], top)
            return answers, ids, logits

    def completions(self, source: WeightSource, found: Sequence[Candidate]) -> list[str]:
        """The base model's greedy completion of each candidate's template."""
        with DyingWithEngine():
            self.engine.load_weights(source)
            prompts = [Prompt(self.encode(c.base_text), c.accepted) for c in found]
            return [completion.text for completion in self.engine.answer(prompts, self.spec.max_tokens)]

    def base_logits(
        self, source: WeightSource, chosen: Sequence[Candidate], token_ids: Sequence[Sequence[int]]
    ) -> list[Floats]:
        """The base model's first-token logits of each candidate at its own token ids."""
        with DyingWithEngine():
            self.engine.load_weights(source)
            return self.engine.first_token_at([self.encode(c.base_text) for c in chosen], token_ids)

    def _encode(self, text: str) -> tuple[int, ...]:
        return tuple(prompt_ids(self.engine.tokenizer, text))
