"""Training only the weights that a probe run does not find harmful."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import Field

from sftlab.strategies.base import Strategy, changed, without_ladder
from sftlab.strategies.registry import register
from sftlab.weights.cut import Order, Region

if TYPE_CHECKING:
    from sftlab.strategies.treatment import Treatment


@register
class MaskedUpdate(Strategy):
    """What a restoration of `percent` would take back of a run on `size` facts is never updated."""

    name = "masked-update"
    title = "Predicted harmful weights left alone"
    source = "open question of Ye et al. 2025, arXiv 2509.16596: prevention in place of cure"

    percent: float = Field(gt=0, le=100)
    size: int = Field(ge=1)
    region: Region = "layers"
    order: Order = "top"

    def apply(self, treatment: Treatment) -> Treatment:
        return without_ladder(changed(treatment, "sft", mask=self.model_dump()))
