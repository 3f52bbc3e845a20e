"""The paper's SFT (Mixed): facts of every mastery."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from sftlab.strategies.base import Strategy, changed, without_ladder
from sftlab.strategies.registry import register

if TYPE_CHECKING:
    from sftlab.strategies.treatment import Treatment


@register
class Mixed(Strategy):
    """A plain tuned model on facts of all five buckets alike."""

    name = "mixed"
    title = "SFT (mixed)"
    source = "Ye et al. 2025, arXiv 2509.16596, Table 7"

    def apply(self, treatment: Treatment) -> Treatment:
        return without_ladder(changed(treatment, "training_sets", buckets=("mixed",)))

    def training_set(self, asked: int | str, own: Sequence[int | str] | None) -> int | str:  # noqa: ARG002
        """The bucket `mixed`, whatever the axis has."""
        return "mixed"
