"""Token ids of prompts, remembered: the same prompts come for every model that an engine measures."""

from __future__ import annotations

from functools import cache
from typing import Any

from sftlab.facts.prompts import prompt_ids


@cache
def encode(tokenizer: Any, text: str) -> tuple[int, ...]:
    """`prompt_ids` of a text. Encoding all prompts again for every model would cost more than a swap of weights.

    The process of an engine has one tokenizer, and keeps the ids of all prompts.
    """
    return tuple(prompt_ids(tokenizer, text))
