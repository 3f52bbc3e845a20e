"""Mastery of a block of facts, with an engine whose completions are written down beforehand."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest

from sftlab.facts.mastery import row_seed
from sftlab.facts.prompts import solved
from sftlab.facts.table import facts_table
from sftlab.facts.templates import Topic
from sftlab.inference.engine import Completion, Prompt, Sampling
from sftlab.measurements.answers import ClosedBookAnswers
from sftlab.measurements.mastery import score_block
from sftlab.measurements.mastery_again import MasteryAgain
from sftlab.measurements.spec import AnswerSpec, MasterySpec

TOPICS = {
    "P19": Topic(
        "P19", "in-domain", "Where was {subject} born?", ("{subject} was born in", "Born: {subject} in")
    )
}


class WordTokenizer:
    """A token is a word; its id is the word's place in `words`, after the beginning of sequence."""

    bos_token_id = 0

    def __init__(self) -> None:
        self.words = ["<s>"]

    def __call__(self, text: str | list[str], add_special_tokens: bool) -> dict[str, list[Any]]:
        assert not add_special_tokens
        if isinstance(text, list):
            return {"input_ids": [self(one, False)["input_ids"] for one in text]}
        self.words += [word for word in dict.fromkeys(text.split()) if word not in self.words]
        return {"input_ids": [self.words.index(word) for word in text.split()]}


@dataclass
class ScriptedEngine:
    """Completes a prompt with the texts that `script` holds for it."""

    script: dict[str, list[str]]
    max_model_len: int = 64
    tokenizer: WordTokenizer = field(default_factory=WordTokenizer)
    calls: list[list[Prompt]] = field(default_factory=list)

    def sample(self, prompts: Sequence[Prompt], sampling: Sampling) -> list[list[Completion]]:
        self.calls.append(list(prompts))
        return [[self.complete(text) for text in self.texts(p)[: sampling.samples]] for p in prompts]

    def answer(self, prompts: Sequence[Prompt], max_tokens: int) -> list[Completion]:
        self.calls.append(list(prompts))
        assert max_tokens == 16
        return [self.complete(self.texts(prompt)[0]) for prompt in prompts]

    def texts(self, prompt: Prompt) -> list[str]:
        return self.script[" ".join(self.tokenizer.words[i] for i in prompt.token_ids[1:])]

    @staticmethod
    def complete(text: str) -> Completion:
        return Completion(text, len(text.split()))


def fact(subject: str, obj: str = "Wales", topic: str = "P19", **other: Any) -> dict[str, Any]:
    names = {"fact_id": f"{topic}-{subject}", "accepted": [obj], "question": f"Where was {subject} born?"}
    return {**names, "topic": topic, "subject": subject, "object": obj, **other}


def test_hits_rate_bucket_and_tokens_are_those_counted_by_hand() -> None:
    engine = ScriptedEngine(
        {
            "Ann was born in": [" Wales", " Walesa", " the", " Cymru"],
            "Born: Ann in": [" Wal", " France Wales", " x y", " z"],
        }
    )
    facts = facts_table([fact("Ann", accepted=["Wales", "Cymru"])])
    (row,) = score_block(facts, TOPICS, engine, MasterySpec(samples=4)).to_pylist()
    # "Walesa" holds "Wales" to the letter; "Wal" is a name cut off by the limit and does not.
    assert row["hits"] == [3, 1]
    assert (row["samples"], row["r"], row["bucket"], row["tokens"]) == (4, 0.5, 2, 4 + 6)
    assert row["error"] is None


def test_a_wrong_row_becomes_an_error_and_its_neighbours_are_scored() -> None:
    engine = ScriptedEngine({"Bo was born in": [" Wales"], "Born: Bo in": [" no"]}, max_model_len=12)
    wrong = [
        fact(""),
        fact("Al", obj=" "),
        fact("Cy", topic="P999"),
        fact("Di", accepted=["Wales", ""]),
        fact("one two three four five six"),
    ]
    rows = score_block(
        facts_table([*wrong[:2], fact("Bo"), *wrong[2:]]),
        TOPICS,
        engine,
        MasterySpec(samples=1, max_tokens=4),
    ).to_pylist()
    assert [row["error"] for row in rows] == [
        "subject is empty",
        "object is empty",
        None,
        "topic 'P999' has no templates",
        "accepted names are missing or empty",
        "too long: prompt and completion take 14 tokens of 12",
    ]
    assert rows[2]["hits"] == [1, 0] and rows[2]["bucket"] == 2
    assert all(
        row["bucket"] is None and row["r"] is None and row["hits"] is None for row in rows if row["error"]
    )


def test_scoring_again_gives_the_rows_and_the_calls_of_the_blocks() -> None:
    texts = {"A": [" Wales", " no"], "B": [" x", " y"], "C": [" Wales", " Wales"]}
    script = {f"{s} was born in": t for s, t in texts.items()} | {
        f"Born: {s} in": t for s, t in texts.items()
    }
    facts, spec = facts_table([fact(subject) for subject in texts]), MasterySpec(samples=2, block_facts=2)
    engine = ScriptedEngine(script)
    table = MasteryAgain(facts, TOPICS, spec).measure(engine)
    assert table["r"].to_pylist() == [0.5, 0.0, 1.0]
    assert [len(call) for call in engine.calls] == [4, 2]  # two templates of two facts, then of one
    blocks = ScriptedEngine(script)
    parts = [score_block(facts.slice(start, 2), TOPICS, blocks, spec) for start in (0, 2)]
    assert table.to_pylist() == [row for part in parts for row in part.to_pylist()]
    assert engine.calls == blocks.calls
    assert MasteryAgain(facts.slice(0, 0), TOPICS, spec).measure(engine).num_rows == 0


@pytest.mark.parametrize("early_stop", [True, False])
def test_prompts_carry_the_seed_of_their_row_and_stop_strings_only_for_an_early_stop(
    early_stop: bool,
) -> None:
    engine = ScriptedEngine(
        {f"{s} was born in": [" x"] for s in "AB"} | {f"Born: {s} in": [" x"] for s in "AB"}
    )
    spec = MasterySpec(samples=1, seed=5, early_stop=early_stop)
    score_block(facts_table([fact("A"), fact("B")]), TOPICS, engine, spec)
    (prompts,) = engine.calls  # one call covers the block
    assert [p.seed for p in prompts] == [row_seed(5, f"P19-{s}", t) for s in "AB" for t in (0, 1)]
    assert {p.stop for p in prompts} == {("Wales",) if early_stop else ()}


def test_answers_keep_the_order_of_splits_and_questions_over_block_boundaries() -> None:
    ask = "<|question|> Where was {} born? <|answer|>"
    engine = ScriptedEngine(
        {ask.format(s): [f" {a}"] for s, a in zip("ABC", ["Wales", "Spain", "Wales"], strict=True)}
    )
    facts = {
        "test": facts_table([fact("A"), fact("B")]),
        "train": facts_table([fact("C"), fact("D", question=" ")]),
    }
    rows = ClosedBookAnswers(facts, AnswerSpec(block_rows=2)).measure(engine).to_pylist()
    assert [(r["fact_id"], r["split"], r["answer"], r["correct"]) for r in rows] == [
        ("P19-A", "test", " Wales", True),
        ("P19-B", "test", " Spain", False),
        ("P19-C", "train", " Wales", True),
        ("P19-D", "train", None, None),
    ]
    assert rows[3]["error"] == "question is empty"
    assert [len(call) for call in engine.calls] == [2, 1]


def test_an_answer_after_examples_ends_where_the_model_asks_a_further_question() -> None:
    shown = solved([("Where was Eve born?", "Peru")])
    assert shown == "<|question|> Where was Eve born? <|answer|> Peru \n"
    before = "<|question|> Where was Eve born? <|answer|> Peru"
    ask = before + " <|question|> Where was {} born? <|answer|>"
    engine = ScriptedEngine(
        {
            ask.format("A"): [" Wales \n<|question|> Where"],
            ask.format("B"): [" Spain \n<|question|> Where was C born? <|answer|> Wales"],
            ask.format("C"): [" Spain <|question|> Wales"],
            "<|question|> Where was D born? <|answer|>": [" Spain \n Wales"],
        }
    )
    facts = {"test": facts_table([*map(fact, "ABC"), fact("D", topic="P50")])}
    rows = ClosedBookAnswers(facts, AnswerSpec(), {"P19": shown}).measure(engine).to_pylist()
    assert [(row["answer"], row["correct"]) for row in rows] == [
        (" Wales ", True),
        (" Spain ", False),
        (" Spain ", False),
        (" Spain \n Wales", True),  # without examples the whole text is the answer
    ]
