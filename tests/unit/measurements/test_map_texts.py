"""Texts that are scored for the map of models."""

from __future__ import annotations

from sftlab.datasets.rendered import Specials
from sftlab.datasets.templates import make_template
from sftlab.measurements.map_texts import map_rows
from tests.support.tokenizers_built import CHATML, byte_level

QUESTIONS = {
    "sums": [{"question_id": "q1", "question": "1 + 2?", "accepted": ["3", "three"]}],
    "facts": [{"question_id": "q1", "question": "Capital of France?", "accepted": ["Paris"]}],
}


def test_questions_are_scored_alone_and_with_their_first_answer_in_the_template() -> None:
    tokenizer = byte_level()
    specials = Specials.of(tokenizer, "model")
    rows = list(map_rows(make_template("paper", tokenizer), specials, QUESTIONS, ("question", "answer")))
    assert [(row.key, row.prompt, row.continuation, row.bos) for row in rows] == [
        ("question/sums/q1", "", "1 + 2?", True),
        ("question/facts/q1", "", "Capital of France?", True),
        ("answer/sums/q1", "", "###Question: 1 + 2?\n###Answer: 3", True),
        ("answer/facts/q1", "", "###Question: Capital of France?\n###Answer: Paris", True),
    ]


def test_tokenizer_without_beginning_of_sequence_puts_the_end_token_first() -> None:
    tokenizer = byte_level()
    tokenizer.bos_token = None
    specials = Specials.of(tokenizer, "model")
    row = next(map_rows(make_template("paper", tokenizer), specials, QUESTIONS, ("question",)))
    assert (row.prompt, row.continuation, row.bos) == ("</s>", "1 + 2?", False)


def test_chat_template_that_writes_its_first_token_is_scored_after_it() -> None:
    tokenizer = byte_level(specials=["<|im_start|>", "<|im_end|>"])
    tokenizer.chat_template = CHATML
    specials = Specials.of(tokenizer, "model")
    row = next(map_rows(make_template("chat", tokenizer), specials, QUESTIONS, ("answer",)))
    assert (row.prompt, row.bos) == ("<|im_start|>", False)
    assert row.continuation.startswith("user\n1 + 2?<|im_end|>")
    assert row.continuation.endswith("assistant\n3")
