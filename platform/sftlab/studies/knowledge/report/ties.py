"""What is said where dev makes no choice: several settings have the best score, or none is better than 0 %."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from sftlab.reporting.text import listed, percent, restored
from sftlab.studies.knowledge.report.buckets import bucket_name
from sftlab.studies.knowledge.results.rows import ChoiceRow
from sftlab.studies.knowledge.results.tables import Results
from sftlab.studies.knowledge.results.ties import Setting, ties

MOST_NAMED = 4


@dataclass(frozen=True)
class Tie:
    """opening: what is said before the first of the best. names: the others."""

    opening: str
    names: str

    def __str__(self) -> str:
        return f"{self.opening} {self.names}"


def tie_of(results: Results, choice: ChoiceRow) -> Tie | None:
    """The settings that tie with a choice; None where one setting is the best on dev."""
    found = ties(results, choice)
    group = (choice.variant, choice.train_bucket, choice.size)
    own = [restored(s.percent) for s in found if s[:3] == group]

    def name(setting: Setting) -> list[str]:
        return [setting.variant] if len(results.variants) > 1 else []

    others = [
        ", ".join([*name(s), bucket_name(s.train_bucket), f"{s.size:,} facts", restored(s.percent)])
        for s in found
        if s[:3] != group
    ]
    return _tie_text(choice.dev, choice.percent, own, others)


def with_tie(tie: Tie | None, does: str, *further: str) -> str:
    """What to do and what is to be said of it, as the first of the best where several tie."""
    if tie is not None:
        does = f"{tie.opening} The first of them: {does[0].lower()}{does[1:]}"
    return " ".join(filter(None, [does, *further]))


def nothing_gained(choice: ChoiceRow, ladder: Collection[float]) -> str:
    """What 0 % as a choice means; '' for another percentage, and where the ladder has no other."""
    return (
        ""
        if choice.percent or len(ladder) < 2
        else "On dev no percentage was better than 0 %, the tuned model as it is."
    )


def _tie_text(dev: float, at: float, own: Sequence[str], others: Sequence[str]) -> Tie | None:
    if not own and not others:
        return None
    names = ([f"{listed(own)} in place of {restored(at)}"] if own else []) + list(others)
    more = len(names) - MOST_NAMED
    shown = [*names[:MOST_NAMED], *([f"{more:,} more"] if more > 0 else [])]
    return Tie(
        f"Dev makes no choice here: {1 + len(own) + len(others):,} settings tie at {percent(dev)}.",
        f"As good on dev as the first of them: {'; '.join(shown)}.",
    )
