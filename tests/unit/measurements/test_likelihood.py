"""Log-likelihoods of continuations from an engine whose log-probabilities are known by hand."""

from __future__ import annotations

import pickle
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from sftlab.inference.limits import WHOLE, BatchLimits, EngineMemoryError
from sftlab.measurements.likelihood import Continuation, LogLikelihoods
from sftlab.measurements.spec import LikelihoodSpec


class Pairs:
    """Two letters that follow each other are one token, from the left; every other letter is one."""

    def __init__(self, bos: int | None) -> None:
        self.bos_token_id = bos

    def __call__(self, text: str, **_: object) -> dict[str, list[int]]:
        ids, rest = [], text
        while rest:
            size = 2 if rest[:2] == "ab" else 1
            ids.append(sum(256**i * ord(letter) for i, letter in enumerate(rest[:size])))
            rest = rest[size:]
        return {"input_ids": ids}


class Counting:
    """The log-probability of a token is minus the number of tokens before it."""

    max_model_len = 10

    def __init__(self, bos: int | None = 1, fits: int = 100) -> None:
        self.tokenizer: Any = Pairs(bos)
        self.calls: list[list[tuple[tuple[int, ...], tuple[int, ...]]]] = []
        self.fits = fits

    def log_likelihoods(
        self, contexts: Sequence[Sequence[int]], continuations: Sequence[Sequence[int]]
    ) -> list[Any]:
        pairs = [(tuple(c), tuple(x)) for c, x in zip(contexts, continuations, strict=True)]
        self.calls.append(pairs)
        if len(pairs) > self.fits:
            raise MemoryError("out of memory")
        return [-np.arange(len(c), len(c) + len(x), dtype=np.float32) for c, x in pairs]


def measured(engine: Counting, rows: list[Continuation], block_rows: int = 1024) -> list[dict[str, Any]]:
    measurement = LogLikelihoods(rows, LikelihoodSpec(block_rows=block_rows))
    live: Any = engine
    found: list[dict[str, Any]] = pickle.loads(pickle.dumps(measurement)).measure(live).to_pylist()
    return found


def test_a_row_has_the_sum_over_the_tokens_of_its_continuation_and_the_number_of_its_bytes() -> None:
    engine = Counting()
    rows = [Continuation("one", "xy", " é"), Continuation("two", "x", "abab!"), Continuation("bos", "", "zz")]
    assert measured(engine, rows) == [
        # <s> x y are before; the blank and é follow, of 1 and 2 bytes.
        {"key": "one", "log_likelihood": -3.0 - 4.0, "tokens": 2, "bytes": 3, "error": None},
        {"key": "two", "log_likelihood": -2.0 - 3.0 - 4.0, "tokens": 3, "bytes": 5, "error": None},
        {"key": "bos", "log_likelihood": -1.0 - 2.0, "tokens": 2, "bytes": 2, "error": None},
    ]
    assert engine.calls[0][2] == ((1,), (ord("z"), ord("z")))


def test_a_text_that_has_its_first_token_itself_gets_no_second_one() -> None:
    engine = Counting()
    (row,) = measured(engine, [Continuation("chat", "xy", "z", bos=False)])
    assert engine.calls == [[((ord("x"), ord("y")), (ord("z"),))]] and row["log_likelihood"] == -2.0


@pytest.mark.parametrize(
    ("row", "bos", "error"),
    [
        (Continuation("r", "x", ""), 1, "continuation is empty"),
        (Continuation("r", "", "x"), None, "prompt has no tokens, and the first token of a text has no probability"),
        (Continuation("r", "", "x", bos=False), 1, "prompt has no tokens"),
        (Continuation("r", "xa", "b"), 1, "a token covers the end of the prompt and the beginning of the contin"),
        (Continuation("r", "xxxx", "yyyyy"), 1, "too long: prompt and continuation take 10 tokens, expected less"),
    ],
)  # fmt: skip
def test_a_row_that_has_no_likelihood_says_why_and_the_others_are_scored(
    row: Continuation, bos: int | None, error: str
) -> None:
    engine = Counting(bos)
    found, other = measured(engine, [row, Continuation("other", "x", "yz")])
    assert found["error"].startswith(error)
    assert found["log_likelihood"] is found["tokens"] is found["bytes"] is None
    assert other["error"] is None and other["tokens"] == 2
    assert [len(call) for call in engine.calls] == [1]


def test_a_call_has_the_rows_of_a_block_and_a_block_without_rows_to_score_needs_no_engine() -> None:
    engine = Counting()
    rows = [Continuation(str(i), "x", "y" if i < 4 else "") for i in range(7)]
    assert [row["key"] for row in measured(engine, rows, 2)] == [str(i) for i in range(7)]
    assert [len(call) for call in engine.calls] == [2, 2]
    assert measured(engine, []) == []


def test_an_engine_without_memory_names_the_rows_and_smaller_batches_leave_out_the_refused() -> None:
    rows = [Continuation(str(i), "x", "y" * (i + 1)) for i in range(4)]
    small: Any = Counting(fits=2)
    measurement = LogLikelihoods(rows, LikelihoodSpec())
    with pytest.raises(EngineMemoryError) as caught:
        measurement.measure(small, WHOLE)
    assert caught.value.keys == ("0", "1", "2", "3")
    limited = BatchLimits(2, {"1": "the engine ran out of memory"})
    found = measurement.measure(small, limited).to_pylist()
    assert [row["error"] for row in found] == [None, "the engine ran out of memory", None, None]
    assert [row["tokens"] for row in found] == [1, None, 3, 4]
