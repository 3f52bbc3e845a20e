"""DARE: random updates are dropped and the others rescaled."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sftlab.strategies.base import EditStrategy
from sftlab.strategies.registry import register
from sftlab.weights.cut import Region
from sftlab.weights.edits import Dare, Edit
from sftlab.weights.spec import LayerRange

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sftlab.weights.cut import Cut


@register
class DropAndRescale(EditStrategy):
    """Each update is dropped with the probability `percent`; the others grow by 1 / (1 - probability)."""

    name = "dare"
    title = "Drop and rescale (DARE)"
    source = "Yu et al. 2023, arXiv 2311.03099"

    seed: int = 0
    region: Region = "all"
    layers: LayerRange | None = None

    def check_percents(self, percents: Sequence[float]) -> None:
        for percent in percents:
            Dare(percent)

    def edit(self, percent: float, cut: Cut | None) -> Edit:  # noqa: ARG002
        return Dare(percent, self.seed, region=self.region, layers=self.layers)
