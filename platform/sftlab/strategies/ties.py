"""TIES trimming of one model: the smallest updates are reset."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sftlab.strategies.base import Strategy, replaced
from sftlab.strategies.registry import register
from sftlab.weights.cut import Region
from sftlab.weights.edits import Edit, Restoration
from sftlab.weights.spec import LayerRange

if TYPE_CHECKING:
    from sftlab.strategies.treatment import Treatment
    from sftlab.weights.cut import Cut


@register
class Ties(Strategy):
    """Of the updates s - p the (100 - percent) % largest in absolute terms are kept, all others reset.

    This is the first step of TIES-Merging; its others, electing signs and merging, need several models. It
    is a restoration from the bottom by absolute change, and shares its results.
    """

    name = "ties"
    title = "TIES trimming"
    source = "Yadav et al. 2023, arXiv 2306.01708"
    has_ladder = True

    region: Region = "all"
    layers: LayerRange | None = None

    def apply(self, treatment: Treatment) -> Treatment:
        return replaced(
            treatment,
            "restore",
            percents=treatment.restore.percents,
            region=self.region,
            layers=self.layers,
            order="bottom",
            measure="absolute",
        )

    def edit(self, percent: float, cut: Cut | None) -> Edit:  # noqa: ARG002
        assert cut is not None and (cut.order, cut.measure) == ("bottom", "absolute")
        return Restoration(cut)
