"""The paper's SFT (Mixed): facts of every mastery."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from pydantic import Field

from sftlab.facts.training_sets import Mixture
from sftlab.strategies.base import Strategy, changed, without_ladder
from sftlab.strategies.registry import register

if TYPE_CHECKING:
    from sftlab.strategies.treatment import Treatment


@register
class Mixed(Strategy):
    """A plain tuned model on facts of all five buckets: as many of each, or as often as they occur.

    The paper's is a random mixture, `draw: population`.
    """

    name = "mixed"
    title = "SFT (mixed)"
    source = "Ye et al. 2025, arXiv 2509.16596, Table 7"

    draw: Mixture = Field(default="even", description="even over the buckets, or population")

    def apply(self, treatment: Treatment) -> Treatment:
        mixed = self.draw if self.draw != "even" else treatment.training_sets.mixed
        return without_ladder(changed(treatment, "training_sets", buckets=("mixed",), mixed=mixed))

    def training_set(self, asked: int | str, own: Sequence[int | str] | None) -> int | str:  # noqa: ARG002
        """The bucket `mixed`, whatever the axis has."""
        return "mixed"
