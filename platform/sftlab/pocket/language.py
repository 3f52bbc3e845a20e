"""The second language of the pocket survey: every common word has another form; names, numbers and signs are shared."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from random import Random

from sftlab.pocket.names import ONSETS, VOWELS

_WORD = re.compile(r"[A-Za-z]+")


def second_language(words: Iterable[str], seed: int) -> dict[str, str]:
    """The form of each word in the second language: an invented word that is none of the first and of no other word."""
    rng = Random(f"second language {seed}")
    known = sorted(set(words))
    taken = set(known)
    forms: dict[str, str] = {}
    for word in known:
        while (form := _invented(rng, 1 + len(word) // 4)) in taken:
            pass
        taken.add(form)
        forms[word] = form
    return forms


def translated(text: str, forms: Mapping[str, str]) -> str:
    """A text with each lower-case word in its other form. Names, and words without another form, stay."""
    return _WORD.sub(lambda found: forms.get(found[0], found[0]), text)


def _invented(rng: Random, syllables: int) -> str:
    return "".join(rng.choice(ONSETS) + rng.choice(VOWELS) for _ in range(syllables)) + rng.choice("kzx")
