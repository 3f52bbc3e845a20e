"""A finding: one sentence of a report, and how it compares with the paper."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Finding:
    """One comparison. `agrees`: the same direction as the paper; None where the numbers leave it open."""

    section: str
    question: str
    paper: str
    here: str
    agrees: bool | None

    @property
    def label(self) -> str:
        return {True: "agrees", False: "differs", None: "open"}[self.agrees]
