"""The one prompt of fine-tuning and of closed-book answers (paper, Appendix A).

    bos <|question|> Q <|answer|>      then the target      A  eos

The two markers are plain text. The paper does not say whether they are special tokens.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

QUESTION = "<|question|>"


def question_prompt(question: str) -> str:
    """Text of the prompt, without the beginning-of-sequence token."""
    return f"{QUESTION} {question.strip()} <|answer|>"


def answer_target(answer: str) -> str:
    """Text of the target, without the end-of-sequence token; both blanks are the study's."""
    return f" {answer.strip()} "


def solved(examples: Sequence[tuple[str, str]]) -> str:
    """Questions with their answers, one a line, as they come before a question in a prompt with examples."""
    return "".join(f"{question_prompt(question)}{answer_target(answer)}\n" for question, answer in examples)


def first_answer(text: str) -> str:
    """What of a completion answers the question: a model that has seen examples goes on with further questions."""
    return text.partition("\n")[0].partition(QUESTION)[0]


def prompt_ids(tokenizer: Any, text: str) -> list[int]:
    """Token ids of `text` after the tokenizer's beginning-of-sequence token, if it has one.

    `tokenizer` is a transformers tokenizer. Whatever its own settings would add is left out, so that
    training, answers and mastery scoring see the same ids.
    """
    ids: list[int] = list(tokenizer(text, add_special_tokens=False)["input_ids"])
    return ids if tokenizer.bos_token_id is None else [tokenizer.bos_token_id, *ids]


def all_prompt_ids(tokenizer: Any, texts: Sequence[str]) -> list[list[int]]:
    """`prompt_ids` of many texts; a tokenizer takes a fraction of the time for them together."""
    rows: list[list[int]] = tokenizer(list(texts), add_special_tokens=False)["input_ids"] if texts else []
    return rows if tokenizer.bos_token_id is None else [[tokenizer.bos_token_id, *ids] for ids in rows]
