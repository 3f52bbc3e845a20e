"""The paper's restoration, with its ablations and controls: region, layers, order, measure and share."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sftlab.strategies.base import Strategy, replaced
from sftlab.strategies.registry import register
from sftlab.weights.cut import Measure, Order, Region, ShareOf
from sftlab.weights.edits import Edit, Restoration
from sftlab.weights.spec import LayerRange

if TYPE_CHECKING:
    from sftlab.strategies.treatment import Treatment
    from sftlab.weights.cut import Cut


@register
class Restore(Strategy):
    """The percent of weights that changed most go back to the base model's values."""

    name = "restore"
    title = "Parameter restoration"
    source = "Ye et al. 2025, arXiv 2509.16596, section 5.1 and appendices B.2, E.2"
    has_ladder = True

    region: Region = "layers"
    layers: LayerRange | None = None
    order: Order = "top"
    measure: Measure = "relative"
    seed: int = 0
    share_of: ShareOf = "weights"

    def apply(self, treatment: Treatment) -> Treatment:
        return replaced(treatment, "restore", percents=treatment.restore.percents, **self.model_dump())

    def edit(self, percent: float, cut: Cut | None) -> Edit:  # noqa: ARG002
        assert cut is not None
        return Restoration(cut)
