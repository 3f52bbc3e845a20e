"""A lower learning rate."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import Field

from sftlab.strategies.base import Strategy, changed, without_ladder
from sftlab.strategies.registry import register

if TYPE_CHECKING:
    from sftlab.strategies.treatment import Treatment


@register
class LowRate(Strategy):
    """The learning rate of the study times a factor below 1."""

    name = "low-rate"
    title = "Lower learning rate"
    source = "common practice"

    factor: float = Field(default=0.1, gt=0, lt=1)

    def apply(self, treatment: Treatment) -> Treatment:
        # 12 digits: 1e-5 * 0.1 is not 1e-6 in floating point, and would be another result
        rate = float(f"{treatment.sft.learning_rate * self.factor:.12g}")
        return without_ladder(changed(treatment, "sft", learning_rate=rate))
