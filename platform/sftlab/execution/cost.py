"""The cost of a step, and how it is printed."""

from __future__ import annotations

from dataclasses import dataclass, fields

from sftlab.files import bytes_text


@dataclass(frozen=True)
class Cost:
    """What building a step takes; tokens are upper bounds, as answers end early."""

    engine_starts: int = 0
    completions: int = 0
    generated_tokens: int = 0
    scored_texts: int = 0
    trained_tokens: int = 0
    bytes_written: int = 0

    def __add__(self, other: Cost) -> Cost:
        return Cost(*(getattr(self, f.name) + getattr(other, f.name) for f in fields(self)))


def cost_text(cost: Cost) -> str:
    """A cost in words; tokens generated are an upper bound, tokens trained an estimate."""
    starts = "engine start" if cost.engine_starts == 1 else "engine starts"
    parts = [
        f"{cost.engine_starts:,} {starts}" if cost.engine_starts else "",
        f"{cost.completions:,} completions (at most {_short(cost.generated_tokens)} tokens)"
        if cost.completions
        else "",
        f"{cost.scored_texts:,} scored texts" if cost.scored_texts else "",
        f"about {_short(cost.trained_tokens)} trained tokens" if cost.trained_tokens else "",
        f"{bytes_text(cost.bytes_written)} of weights" if cost.bytes_written else "",
    ]
    return ", ".join(part for part in parts if part)


def _short(count: float) -> str:
    for unit in ("", " k", " M", " G"):
        if count < 1000 or unit == " G":
            break
        count /= 1000
    return f"{count:,.0f}{unit}" if count >= 100 or not unit else f"{count:,.1f}{unit}"
