"""Mastery of a fact: its success rate R and its bucket (paper, section 3.1)."""

from __future__ import annotations

import re
from collections.abc import Sequence
from hashlib import sha256

BUCKETS = (0, 1, 2, 3, 4)


def contains_answer(completion: str, accepted: Sequence[str], whole_words: bool | None = None) -> bool:
    """Whether the completion holds the object or one of its accepted names, to the letter.

    whole_words: only where no letter, digit or underscore touches the name.

    >>> contains_answer(" Helium", ["He"]), contains_answer(" Helium", ["He"], whole_words=True)
    (True, False)
    """
    if whole_words:
        return any(re.search(rf"(?<!\w){re.escape(name)}(?!\w)", completion) for name in accepted)
    return any(name in completion for name in accepted)


def bucket_of(hits: int, completions: int) -> int:
    """Bucket of R = hits / completions: 0 where R = 0, else i with R in ((i-1)/4, i/4].

    Integer arithmetic, so that a rate on a boundary never depends on rounding.
    """
    assert 0 <= hits <= completions and completions > 0
    return -(-4 * hits // completions)


def row_seed(seed: int, fact_id: str, template: int) -> int:
    """Seed of one prompt's samples, in [0, 2**30).

    It belongs to the row, so that a retry, another block size or another number of workers repeats the
    same draw. Sample i uses row_seed + i.
    """
    digest = sha256(f"{seed}\x1f{fact_id}\x1f{template}".encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 34
