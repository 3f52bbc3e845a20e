"""What the worker of an evaluation asks its engine, and what the driver tells of an engine that refuses a model."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from sftlab.errors import UserError
from sftlab.inference import evaluator
from sftlab.inference.actors import EngineActor
from sftlab.inference.engine import Completion, EngineSwapError, Prompt
from sftlab.inference.evaluation_worker import EvaluationWorker
from sftlab.inference.evaluator import EvaluationItem
from sftlab.inference.spec import EngineRuntime, EngineSpec
from sftlab.measurements.divergence_prompts import Candidate
from sftlab.measurements.spec import AnswerSpec

ROOM, MAX_TOKENS = 20, 4


class Narrow:
    """Completes prompts of one token a character, and raises, as vLLM does, where one has no room."""

    max_model_len = ROOM

    def __init__(self, *_: object) -> None:
        self.tokenizer = SimpleNamespace(bos_token_id=None)

    def load_weights(self, source: object) -> None:
        del source

    def answer(self, prompts: Sequence[Prompt], max_tokens: int) -> list[Completion]:
        assert all(len(prompt.token_ids) + max_tokens <= ROOM for prompt in prompts)
        return [Completion(f"{len(prompt.token_ids)} letters", 1) for prompt in prompts]


@pytest.fixture
def worker(monkeypatch: pytest.MonkeyPatch) -> EvaluationWorker:
    monkeypatch.setattr(EvaluationWorker, "_encode", lambda _self, text: tuple(map(ord, text)))
    engine: Any = Narrow
    return EvaluationWorker("model", AnswerSpec(max_tokens=MAX_TOKENS), EngineSpec(), EngineRuntime(), engine)


def candidate(base: int, tuned: int) -> Candidate:
    """One whose prompts have so many tokens."""
    return Candidate(f"{base}-{tuned}", "T", 0, ("X",), "b" * base, "t" * tuned)


def test_candidates_without_room_for_either_prompt_are_not_asked(worker: EvaluationWorker) -> None:
    source: Any = None
    found = [candidate(16, 19), candidate(17, 1), candidate(5, 20), candidate(3, 3), candidate(21, 21)]
    assert worker.completions(source, found) == ["16 letters", None, None, "3 letters", None]
    assert worker.completions(source, found[1:3]) == [None, None]


class Swapped:
    """An actor whose engine takes in no weights."""

    def __init__(self, before: int) -> None:
        assert before == 0

    def __getattr__(self, _method: str) -> Any:
        return SimpleNamespace(remote=lambda *_: "task")


@pytest.fixture
def refusing(monkeypatch: pytest.MonkeyPatch) -> None:
    import ray

    def refuse(_task: object) -> None:
        raise EngineSwapError("lm_head.weight: the live model still computes with other weights.")

    monkeypatch.setattr(evaluator, "result", refuse)
    monkeypatch.setattr(ray, "put", lambda value: value)
    monkeypatch.setattr(ray, "wait", lambda tasks, num_returns: (tasks[:num_returns], tasks[num_returns:]))


@pytest.mark.usefixtures("refusing")
def test_a_model_that_an_engine_did_not_take_in_is_named_with_the_way_on() -> None:
    source: Any = None
    item = EvaluationItem("0123", source, {}, Path("store/evaluation/b0-n25-s0-r10-0123456789ab"))
    why = r"lm_head.weight: the live model .* Finished models are kept; run again"
    with pytest.raises(UserError, match=rf"the weights of b0-n25-s0-r10-0123456789ab.* {why}"):
        list(evaluator._spread([EngineActor(Swapped)], [item], [], 0))
    with pytest.raises(UserError, match=rf"the weights of the base model.* {why}"):
        evaluator.insist(EngineActor(Swapped), "completions", source, [])
