"""Freezing layers."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sftlab.strategies.base import Strategy, changed, without_ladder
from sftlab.strategies.registry import register
from sftlab.weights.spec import LayerRange

if TYPE_CHECKING:
    from sftlab.strategies.treatment import Treatment


@register
class FreezeLayers(Strategy):
    """The weights of some transformer layers are not trained."""

    name = "freeze-layers"
    title = "Frozen layers"
    source = "common practice; Ye et al. 2025, appendix E.2, on which layers matter"

    layers: LayerRange

    def apply(self, treatment: Treatment) -> Treatment:
        return without_ladder(changed(treatment, "sft", freeze_layers=self.layers))
