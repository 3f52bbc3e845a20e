"""Examples for prompts with solved questions: known facts of the topic that is asked about."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from hashlib import sha256
from typing import Any


def examples_by_topic(
    known: Sequence[Mapping[str, Any]], asked: Collection[str], shots: int, seed: int
) -> dict[str, list[tuple[str, str]]]:
    """Question and answer of `shots` known facts of each topic; topics with fewer are left out.

    The facts are the first ones in a seeded order, so fewer shots are the first of more. A fact whose question is
    asked is no example.

    Args:
        known: rows of the table of facts.
        asked: questions that are asked.
    """
    ordered = sorted(known, key=lambda fact: _key(seed, fact["fact_id"]))
    found: dict[str, list[tuple[str, str]]] = defaultdict(list)
    for fact in ordered:
        if len(found[fact["topic"]]) < shots and fact["question"] not in asked:
            found[fact["topic"]].append((fact["question"], fact["object"]))
    return {topic: examples for topic, examples in found.items() if len(examples) == shots}


def _key(seed: int, fact: str) -> bytes:
    return sha256(f"few-shot\x1f{seed}\x1f{fact}".encode()).digest()
