"""Replay: well-mastered facts in every training set."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import Field

from sftlab.strategies.base import Strategy, changed, without_ladder
from sftlab.strategies.registry import register

if TYPE_CHECKING:
    from sftlab.strategies.treatment import Treatment


@register
class Replay(Strategy):
    """The same facts, and beside them a share of facts that the base model has mastered well (bucket 4)."""

    name = "replay"
    title = "Replay of well-mastered facts"
    source = "Robins 1995, Catastrophic forgetting, rehearsal and pseudorehearsal (Connection Science 7)"

    share: float = Field(default=0.25, gt=0, le=1)

    def apply(self, treatment: Treatment) -> Treatment:
        return without_ladder(changed(treatment, "training_sets", replay=self.share))
