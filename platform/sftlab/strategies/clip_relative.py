"""A limit to the relative change of every weight while weights are trained."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import Field

from sftlab.strategies.base import Strategy, changed, without_ladder
from sftlab.strategies.registry import register

if TYPE_CHECKING:
    from sftlab.strategies.treatment import Treatment


@register
class ClipRelative(Strategy):
    """After each step no weight is further from its base value than a share of that value."""

    name = "clip-relative"
    title = "Relative change limited while training"
    source = (
        "prevention twin of the restoration of Ye et al. 2025, arXiv 2509.16596: a limit in place of a reset"
    )

    limit: float = Field(gt=0)

    def apply(self, treatment: Treatment) -> Treatment:
        return without_ladder(changed(treatment, "sft", clip_relative=self.limit))
