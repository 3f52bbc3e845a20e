"""LoRA: low-rank adapters in place of full fine-tuning."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import Field

from sftlab.strategies.base import Strategy, changed, without_ladder
from sftlab.strategies.registry import register

if TYPE_CHECKING:
    from sftlab.strategies.treatment import Treatment


@register
class LoRA(Strategy):
    """Adapters of a low rank are trained and merged (Table 7 of the paper: on the bucket "mixed")."""

    name = "lora"
    title = "LoRA"
    source = "Hu et al. 2021, arXiv 2106.09685; Ye et al. 2025, Table 7"

    rank: int = Field(default=8, ge=1)
    alpha: float = Field(default=16.0, gt=0)

    def apply(self, treatment: Treatment) -> Treatment:
        lora = {"rank": self.rank, "alpha": self.alpha}
        return without_ladder(changed(treatment, "sft", lora=lora))
