"""Which facts and prompts the first-token divergence is measured on (paper, section 4.1)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sftlab.errors import UserError
from sftlab.facts.prompts import question_prompt
from sftlab.facts.templates import Topic

MASTERED = 4  # the bucket of facts that hardly depend on the template


@dataclass(frozen=True)
class Candidate:
    """A mastered fact and the two texts whose next tokens are compared."""

    fact_id: str
    topic: str
    template: int
    accepted: tuple[str, ...]
    base_text: str
    tuned_text: str


def best_templates(mastery: Iterable[Mapping[str, Any]]) -> dict[str, int]:
    """For every topic the mapping template with the most hits over its mastered facts.

    `mastery` holds topic, bucket and hits. Ties go to the lowest index.
    """
    totals: dict[str, list[int]] = {}
    for row in mastery:
        if row["bucket"] == MASTERED:
            known = totals.setdefault(row["topic"], [0] * len(row["hits"]))
            totals[row["topic"]] = [total + hits for total, hits in zip(known, row["hits"], strict=True)]
    return {topic: hits.index(max(hits)) for topic, hits in totals.items()}


def candidates(
    facts: Sequence[Mapping[str, Any]],
    mastery: Sequence[Mapping[str, Any]],
    topics: Mapping[str, Topic],
    same_prompt: bool,
) -> list[Candidate]:
    """The mastered facts, in the order of `facts`, with the best template of their topic.

    Raises UserError where `facts` and `mastery` are not the same facts in the same order.
    """
    if [fact["fact_id"] for fact in facts] != [row["fact_id"] for row in mastery]:
        raise UserError(
            "the mastery table and the facts of the divergence are not the same rows",
            advice="score them again.",
        )
    templates = best_templates(mastery)
    found = []
    for fact, row in zip(facts, mastery, strict=True):
        if row["bucket"] != MASTERED:
            continue
        template = templates[fact["topic"]]
        base_text = topics[fact["topic"]].fill(fact["subject"])[template]
        tuned_text = base_text if same_prompt else question_prompt(fact["question"])
        found.append(
            Candidate(
                fact["fact_id"], fact["topic"], template, tuple(fact["accepted"]), base_text, tuned_text
            )
        )
    return found


def answers_near_start(completion: str, accepted: Sequence[str], within: int) -> bool:
    """Whether an accepted name starts at most `within` characters behind the first non-blank character."""
    text = completion.lstrip()
    return any(-1 < text.find(name) <= within for name in accepted)
