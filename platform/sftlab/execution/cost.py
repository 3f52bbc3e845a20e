"""The cost of a step, and how it is printed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields

from sftlab.files import bytes_text
from sftlab.reporting.text import short_count


@dataclass(frozen=True)
class Cost:
    """What building a step takes; tokens are upper bounds, as answers end early, and prompts estimates.

    bytes_written, bytes_read: of weights. prompt_tokens: of prompts that an engine reads; the plan of a survey counts
    them in its totals alone.
    """

    engine_starts: int = 0
    completions: int = 0
    generated_tokens: int = 0
    scored_texts: int = 0
    trained_tokens: int = 0
    bytes_written: int = 0
    prompt_tokens: int = 0
    bytes_read: int = 0

    def __add__(self, other: Cost) -> Cost:
        return Cost(*(getattr(self, f.name) + getattr(other, f.name) for f in fields(self)))

    def times(self, count: int) -> Cost:
        """The cost of so many steps like this one."""
        return Cost(*(count * getattr(self, f.name) for f in fields(self)))


def most(costs: Sequence[Cost]) -> Cost:
    """The largest of each part."""
    return Cost(*(max(getattr(cost, f.name) for cost in costs) for f in fields(Cost)))


def cost_text(cost: Cost) -> str:
    """A cost in words; tokens generated are an upper bound, tokens trained an estimate."""
    starts = "engine start" if cost.engine_starts == 1 else "engine starts"
    read = f"about {short_count(cost.prompt_tokens)} tokens read, " if cost.prompt_tokens else ""
    written = f"at most {short_count(cost.generated_tokens)} {'written' if read else 'tokens'}"
    parts = [
        f"{cost.engine_starts:,} {starts}" if cost.engine_starts else "",
        f"{cost.completions:,} completions ({read}{written})" if cost.completions else "",
        f"{cost.scored_texts:,} scored texts" if cost.scored_texts else "",
        f"about {short_count(cost.trained_tokens)} trained tokens" if cost.trained_tokens else "",
        f"{bytes_text(cost.bytes_written)} of weights" if cost.bytes_written else "",
    ]
    return ", ".join(part for part in parts if part)
