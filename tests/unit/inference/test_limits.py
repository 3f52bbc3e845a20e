"""Batches become smaller where an engine runs out of memory, and at last a row is left out with the reason."""

from __future__ import annotations

import pickle
from collections.abc import Sequence
from typing import Any

import pytest

from sftlab.errors import UserError
from sftlab.facts.table import facts_table
from sftlab.facts.templates import Topic
from sftlab.inference.engine import Completion, Prompt, Sampling
from sftlab.inference.limits import MOST_REFUSED, WHOLE, BatchLimits, EngineMemoryError, named_memory_errors
from sftlab.measurements.answers import ClosedBookAnswers
from sftlab.measurements.mastery import score_block
from sftlab.measurements.spec import AnswerSpec, MasterySpec
from tests.support.refusals import refused

REASON = "CUDA out of memory. Tried to allocate 2.00 GiB"


class SmallEngine:
    """Answers with the prompt's length; runs out of memory over more than `fits` tokens in one call."""

    tokenizer: Any
    max_model_len = 1000

    def __init__(self, fits: int) -> None:
        self.fits, self.calls, self.tokenizer = fits, 0, Letters()

    def answer(self, prompts: Sequence[Prompt], max_tokens: int) -> list[Completion]:
        self.calls += 1
        if sum(len(prompt.token_ids) for prompt in prompts) > self.fits:
            raise RuntimeError(f"{REASON}.\nMore lines")
        return [Completion(f"{len(prompt.token_ids)} of {max_tokens}", 1) for prompt in prompts]

    def sample(self, prompts: Sequence[Prompt], sampling: Sampling) -> list[list[Completion]]:
        return [[answer] * sampling.samples for answer in self.answer(prompts, sampling.max_tokens)]


class Letters:
    """A tokenizer of the toy's kind."""

    bos_token_id = None

    def __call__(self, texts: str | Sequence[str], **_: object) -> dict[str, Any]:
        return {"input_ids": encode(texts) if isinstance(texts, str) else [encode(text) for text in texts]}


def encode(text: str) -> tuple[int, ...]:
    return (0,) * (100 if "whale" in text else 1)


def facts(count: int, whale: int) -> Any:
    return facts_table(
        {
            "fact_id": f"fact-{i}",
            "topic": "P19",
            "subject": "whale" if i == whale else "ant",
            "object": "sea",
            "accepted": ["sea"],
            "question": "Where does a whale live?" if i == whale else "Where does an ant live?",
        }
        for i in range(count)
    )


def answered(engine: SmallEngine) -> tuple[Any, int]:
    """What a driver does: it restarts an engine, with the limits that follow."""
    limits, starts = WHOLE, 1
    while True:
        try:
            return ClosedBookAnswers({"test": facts(60, 7)}, AnswerSpec()).measure(engine, limits), starts  # type: ignore[arg-type]
        except EngineMemoryError as error:
            limits, starts = limits.after(pickle.loads(pickle.dumps(error))), starts + 1


def test_a_batch_that_does_not_fit_is_cut_and_a_row_that_does_not_fit_alone_says_why() -> None:
    table, starts = answered(SmallEngine(fits=1000))
    assert (starts, table["error"].null_count) == (1, 60)
    table, starts = answered(SmallEngine(fits=110))
    assert (starts, table["error"].null_count) == (2, 60)
    table, starts = answered(SmallEngine(fits=50))
    assert starts == 4
    errors = {row["fact_id"]: row["error"] for row in table.to_pylist() if row["error"]}
    assert errors == {"fact-7": f"the engine ran out of memory: {REASON}."}
    assert table["answer"].null_count == table["correct"].null_count == 1


def test_a_block_of_the_mastery_is_cut_in_the_same_way() -> None:
    texts = Topic(
        "P19", "in-domain", "Where does {subject} live?", ("{subject} lives in", "Home of {subject}:")
    )
    spec, limits, starts = MasterySpec(samples=2), WHOLE, 1
    while True:
        try:
            table = score_block(facts(8, 5), {"P19": texts}, SmallEngine(fits=50), spec, limits)  # type: ignore[arg-type]
            break
        except EngineMemoryError as error:
            limits, starts = limits.after(error), starts + 1
    rows = table.to_pylist()
    assert starts == 3 and [row["error"] is None for row in rows] == [True] * 5 + [False] + [True] * 2
    assert rows[5] == {**rows[5], "hits": None, "r": None, "bucket": None}
    assert "the engine ran out of memory: CUDA" in rows[5]["error"]
    assert rows[0]["hits"] == [0, 0]


def test_one_call_covers_a_whole_block_as_long_as_it_fits() -> None:
    engine = SmallEngine(fits=1000)
    ClosedBookAnswers({"test": facts(60, 7)}, AnswerSpec(block_rows=30)).measure(engine)  # type: ignore[arg-type]
    assert engine.calls == 2


def test_an_engine_that_holds_no_row_at_all_ends_the_run_with_what_to_change() -> None:
    with refused("out of memory", advice=r"lower engine\.max_num_seqs"):
        answered(SmallEngine(fits=0))
    limits = BatchLimits()
    for key in "abc"[:MOST_REFUSED]:
        limits = limits.after(EngineMemoryError([key], REASON))
    assert set(limits.refused) == {"a", "b", "c"}
    with pytest.raises(UserError, match="even over single questions"):
        limits.after(EngineMemoryError(["d"], REASON))
    with pytest.raises(UserError, match="even over single questions"):
        BatchLimits(refused={"a": REASON}).after(EngineMemoryError(["a"], REASON))


def test_other_errors_pass_as_they_are() -> None:
    with pytest.raises(RuntimeError, match="illegal memory access"), named_memory_errors(["a"]):
        raise RuntimeError("CUDA error: an illegal memory access was encountered")
    assert BatchLimits().pieces([]) == [] and BatchLimits(2).pieces("abc") == ["ab", "c"]
