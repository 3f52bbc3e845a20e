"""L2-SP: a pull towards the base model's weights while they are trained."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import Field

from sftlab.strategies.base import Strategy, changed, without_ladder
from sftlab.strategies.registry import register

if TYPE_CHECKING:
    from sftlab.strategies.treatment import Treatment


@register
class L2SP(Strategy):
    """The squared distance to the base model's weights is part of the loss."""

    name = "l2-sp"
    title = "Pull towards the base weights (L2-SP)"
    source = "Li et al. 2018, arXiv 1802.01483"

    strength: float = Field(gt=0)

    def apply(self, treatment: Treatment) -> Treatment:
        return without_ladder(changed(treatment, "sft", l2_sp=self.strength))
