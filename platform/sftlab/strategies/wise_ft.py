"""WiSE-FT: linear interpolation between the tuned and the base model."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sftlab.strategies.base import EditStrategy
from sftlab.strategies.registry import register
from sftlab.weights.cut import Region
from sftlab.weights.edits import Edit, Interpolation
from sftlab.weights.spec import LayerRange

if TYPE_CHECKING:
    from sftlab.weights.cut import Cut


@register
class WiseFT(EditStrategy):
    """Every weight goes the percent of its way back to the base model."""

    name = "wise-ft"
    title = "Interpolation with the base model (WiSE-FT)"
    source = "Wortsman et al. 2022, arXiv 2109.01903"

    region: Region = "all"
    layers: LayerRange | None = None

    def edit(self, percent: float, cut: Cut | None) -> Edit:  # noqa: ARG002
        return Interpolation(percent, region=self.region, layers=self.layers)
