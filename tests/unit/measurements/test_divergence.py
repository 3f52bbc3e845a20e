"""First-token divergence: what each step asks of an engine, and how the steps make one table."""

from __future__ import annotations

import pickle
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from sftlab.facts.table import facts_table
from sftlab.facts.templates import Topic
from sftlab.inference.engine import Completion, Prompt
from sftlab.inference.limits import BatchLimits, EngineMemoryError
from sftlab.inference.measurement import Comparison, Measurement
from sftlab.measurements.divergence import BaseCompletions, BaseLogits, FirstTokenDivergence, FirstTokens
from sftlab.measurements.divergence_prompts import Candidate
from sftlab.measurements.mastery import mastery_schema
from sftlab.measurements.spec import DivergenceSpec

ROOM, MAX_TOKENS = 20, 4
TOPICS = {"T": Topic("T", "in-domain", "Where is {subject}?", ("{subject} in",))}


class Letters:
    """One token a character; its id is the character's."""

    bos_token_id = None

    def __call__(self, text: str, **_: object) -> dict[str, list[int]]:
        return {"input_ids": list(map(ord, text))}


class Narrow:
    """Completes prompts that fit, and raises, as vLLM does, where one has no room.

    The logit of token t after a prompt of n tokens is n + t / 8, and tokens are 0 to 9 + n.
    """

    max_model_len = ROOM

    def __init__(self, fits: int = 100) -> None:
        self.tokenizer, self.fits = Letters(), fits

    def answer(self, prompts: Sequence[Prompt], max_tokens: int) -> list[Completion]:
        self._room(prompts)
        assert all(len(prompt.token_ids) + max_tokens <= ROOM for prompt in prompts)
        return [Completion(f"{len(prompt.token_ids)} letters", 1) for prompt in prompts]

    def first_token_top(self, prompts: Sequence[Sequence[int]], k: int) -> tuple[Any, Any]:
        self._room(prompts)
        ids = np.array([[9 + len(prompt) - i for i in range(k)] for prompt in prompts], np.int64)
        return ids, np.array(
            [[len(p) + t / 8 for t in row] for p, row in zip(prompts, ids, strict=True)], np.float32
        )

    def first_token_at(
        self, prompts: Sequence[Sequence[int]], token_ids: Sequence[Sequence[int]]
    ) -> list[Any]:
        self._room(prompts)
        return [
            np.array([len(p) + t / 8 for t in row], np.float32)
            for p, row in zip(prompts, token_ids, strict=True)
        ]

    def _room(self, prompts: Sequence[object]) -> None:
        if len(prompts) > self.fits:
            raise RuntimeError("CUDA out of memory.")


def measured(measurement: Measurement, fits: int = 100, limits: BatchLimits | None = None) -> pa.Table:
    engine: Any = Narrow(fits)
    sent: Measurement = pickle.loads(pickle.dumps(measurement))
    return sent.measure(engine, limits or BatchLimits())


def candidate(base: int, tuned: int) -> Candidate:
    """One whose prompts have so many tokens."""
    return Candidate(f"{base}-{tuned}", "T", 0, ("X",), "b" * base, "t" * tuned)


def test_candidates_without_room_for_either_prompt_are_not_asked() -> None:
    found = [candidate(16, 19), candidate(17, 1), candidate(5, 20), candidate(3, 3), candidate(21, 21)]
    table = measured(BaseCompletions(found, MAX_TOKENS))
    assert table["fact_id"].to_pylist() == ["16-19", "17-1", "5-20", "3-3", "21-21"]
    assert table["completion"].to_pylist() == ["16 letters", None, None, "3 letters", None]
    assert measured(BaseCompletions(found[1:3], MAX_TOKENS))["completion"].to_pylist() == [None, None]


@pytest.mark.parametrize(
    "measurement",
    [
        BaseCompletions([candidate(1, 2), candidate(2, 1), candidate(3, 3)], MAX_TOKENS),
        FirstTokens([candidate(1, 2), candidate(2, 1), candidate(3, 3)], 3),
        BaseLogits([candidate(1, 2), candidate(2, 1), candidate(3, 3)], [[1, 7], [2], [0, 3, 4]]),
    ],
)
def test_smaller_batches_give_the_same_table_and_a_batch_that_does_not_fit_names_its_facts(
    measurement: Measurement,
) -> None:
    assert measured(measurement, 2, BatchLimits(2)).equals(measured(measurement))
    with pytest.raises(EngineMemoryError) as error:
        measured(measurement, 2)
    assert error.value.keys == ("divergence/1-2", "divergence/2-1", "divergence/3-3")


def comparison(buckets: Sequence[int], within: int) -> Comparison:
    names = ["Ann", "Bo", "Cyrus"][: len(buckets)]
    facts = facts_table(
        {
            "fact_id": name,
            "topic": "T",
            "subject": name,
            "object": "X",
            "accepted": ["letters"],
            "question": "?",
        }
        for name in names
    )
    rows = [
        {"fact_id": n, "topic": "T", "hits": [9], "bucket": b} for n, b in zip(names, buckets, strict=True)
    ]
    mastery = pa.Table.from_pylist(rows, schema=mastery_schema())
    base: Any = None
    spec = DivergenceSpec(top=2, same_prompt=True, answer_within=within)
    return FirstTokenDivergence(spec, MAX_TOKENS, facts, mastery, TOPICS, base)


def test_the_base_model_reports_its_logits_at_the_tokens_of_each_model(tmp_path: Path) -> None:
    compared, asked = comparison([4, 3, 4], within=2), []

    def ask(measurement: Measurement) -> pa.Table:
        asked.append(measurement)
        return measured(measurement)

    prepared = tmp_path / "prepared.parquet"
    pq.write_table(compared.prepare(ask), prepared)
    assert pq.read_table(prepared).to_pydict() == {
        "fact_id": ["Ann", "Cyrus"],
        "template": [0, 0],
        "completion": ["6 letters", "8 letters"],  # "Ann in", "Cyrus in"
    }
    # Ann's six tokens: 15 and 14 have the largest logits; Cyrus's eight: 17 and 16.
    one = measured(compared.measurement(prepared))
    assert one.to_pydict() == {
        "fact_id": ["Ann", "Cyrus"],
        "token_ids": [[15, 14], [17, 16]],
        "tuned_logits": [[7.875, 7.75], [10.125, 10.0]],
    }
    other = one.set_column(1, "token_ids", pa.array([[3, 15], [17, 0]], pa.list_(pa.int32())))
    paths = [tmp_path / "one.parquet", tmp_path / "other.parquet"]
    for table, path in zip([one, other], paths, strict=True):
        pq.write_table(table, path)
    results = list(compared.finish(prepared, paths, ask))
    assert results[0].column_names == ["fact_id", "token_ids", "tuned_logits", "base_logits"]
    assert results[0]["base_logits"].to_pylist() == [[7.875, 7.75], [10.125, 10.0]]
    assert results[1]["base_logits"].to_pylist() == [[6.375, 7.875], [10.125, 8.0]]
    assert results[1]["tuned_logits"].to_pylist() == one["tuned_logits"].to_pylist()
    assert [type(a).__name__ for a in asked] == ["BaseCompletions", "BaseLogits"]
    assert asked[1].token_ids == [[3, 14, 15], [0, 16, 17]]


def refuse(measurement: Measurement) -> pa.Table:
    raise AssertionError(f"the base model is asked for {measurement}")


def test_without_mastered_facts_the_base_model_is_not_asked_and_the_tables_are_empty(tmp_path: Path) -> None:
    compared, prepared = comparison([3, 0], within=4), tmp_path / "prepared.parquet"
    pq.write_table(compared.prepare(refuse), prepared)
    table = measured(compared.measurement(prepared))
    assert pq.read_table(prepared).num_rows == table.num_rows == 0
    pq.write_table(table, tmp_path / "one.parquet")
    (result,) = compared.finish(prepared, [tmp_path / "one.parquet"], refuse)
    assert result.column_names == ["fact_id", "token_ids", "tuned_logits", "base_logits"]
    assert result.num_rows == 0


def test_facts_that_the_base_model_does_not_answer_near_the_start_are_not_compared(tmp_path: Path) -> None:
    compared, prepared = comparison([4, 4, 4], within=1), tmp_path / "prepared.parquet"
    pq.write_table(compared.prepare(measured), prepared)
    assert measured(compared.measurement(prepared)).num_rows == 0  # "letters" begins after two characters
