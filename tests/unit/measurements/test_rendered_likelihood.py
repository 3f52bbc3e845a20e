"""Texts that are scored for perplexity and for choices."""

from __future__ import annotations

import pytest

from sftlab.datasets.conversations import Conversation, Turn, exchange
from sftlab.datasets.rendered import Specials
from sftlab.datasets.templates import ExchangeTemplate
from sftlab.measurements.rendered_likelihood import choice_rows, chosen, perplexity_rows


def template(has_bos: bool = True) -> ExchangeTemplate:
    """`Q: PROMPT` and `A: RESPONSE`, a line each, closed by </s>."""
    return ExchangeTemplate(
        "jinja",
        lambda instruction, _response, _system: (f"Q: {instruction}\nA: ", ""),
        False,
        Specials("</s>", ("</s>",), has_bos),
    )


def test_response_is_scored_after_its_prompt_with_its_closing_token_and_the_text_as_a_whole() -> None:
    response, full = perplexity_rows(template(), [exchange("one plus one?", "two")])
    assert (response.key, response.prompt, response.continuation) == (
        "response/0/0",
        "Q: one plus one?\nA:",
        " two</s>",
    )
    assert (response.text, response.bos) == (" two", True)
    assert (full.key, full.prompt, full.continuation) == ("full/0", "", "Q: one plus one?\nA: two</s>")


def test_every_trained_response_of_a_conversation_is_scored_and_no_other() -> None:
    turns = (
        Turn("user", "a"),
        Turn("assistant", "b", loss=True),
        Turn("user", "c"),
        Turn("assistant", "d"),
        Turn("user", "e"),
        Turn("assistant", "f", loss=True),
    )
    rows = [
        row for row in perplexity_rows(template(), [Conversation(turns)]) if row.key.startswith("response")
    ]
    assert [row.text for row in rows] == [" b", " f"]
    assert rows[1].prompt.endswith("Q: e\nA:") and " d</s>" in rows[1].prompt


def test_whole_texts_need_a_first_token() -> None:
    keys = [row.key for row in perplexity_rows(template(has_bos=False), [exchange("a", "b")])]
    assert keys == ["response/0/0"]


def test_choices_are_responses_without_a_closing_token() -> None:
    questions = [
        {"question_id": "q1", "question": "which?", "choices": ["red", "blue"]},
        {"question_id": "q2", "question": "what?", "choices": []},
    ]
    rows = list(choice_rows(template(), questions))
    assert [(row.key, row.prompt, row.continuation) for row in rows] == [
        ("q1/0", "Q: which?\nA:", " red"),
        ("q1/1", "Q: which?\nA:", " blue"),
    ]


def test_examples_come_before_each_question_as_earlier_exchanges() -> None:
    questions = [{"question_id": "q1", "question": "which?", "choices": ["red", "blue"]}]
    first, _ = choice_rows(template(), questions, (("one?", "two"),))
    assert (first.prompt, first.continuation) == ("Q: one?\nA: two</s>\nQ: which?\nA:", " red")


@pytest.mark.parametrize(
    ("values", "place"),
    [([-3.0, -1.0, -2.0], 1), ([-1.0, -1.0], 0), ([-1.0, None], None)],
)
def test_likeliest_choice_is_the_first_of_equal_ones(values: list[float | None], place: int | None) -> None:
    rows = [{"key": f"a/b/{n}", "log_likelihood": value} for n, value in enumerate(values)]
    assert chosen(rows) == {"a/b": place}
