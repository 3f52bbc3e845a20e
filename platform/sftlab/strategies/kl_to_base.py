"""A KL term to the base model's predictions while weights are trained."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import Field

from sftlab.strategies.base import Strategy, changed, without_ladder
from sftlab.strategies.registry import register

if TYPE_CHECKING:
    from sftlab.strategies.treatment import Treatment


@register
class KLToBase(Strategy):
    """The divergence from the base model's predictions on the answer tokens is part of the loss."""

    name = "kl-to-base"
    title = "KL term to the base model"
    source = "Li and Hoiem 2016, arXiv 1606.09282 (learning without forgetting)"

    weight: float = Field(gt=0)

    def apply(self, treatment: Treatment) -> Treatment:
        return without_ladder(changed(treatment, "sft", kl_to_base=self.weight))
