"""The paper's SFT (Divided): facts of one mastery."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

from sftlab.errors import UserError
from sftlab.strategies.base import Strategy, changed, without_ladder
from sftlab.strategies.registry import register

if TYPE_CHECKING:
    from sftlab.strategies.treatment import Treatment


@register
class Divided(Strategy):
    """A plain tuned model on the facts of one bucket, or of each of the study's in turn, without restoration."""

    name = "divided"
    title = "SFT (divided)"
    source = "Ye et al. 2025, arXiv 2509.16596, Table 7"

    bucket: Literal[0, 1, 2, 3, 4] | None = None

    def apply(self, treatment: Treatment) -> Treatment:
        own = [bucket for bucket in treatment.training_sets.buckets if bucket in (0, 1, 2, 3, 4)]
        buckets = own if self.bucket is None else [self.bucket]
        if not buckets:
            raise UserError(
                "training_sets.buckets holds no single bucket",
                place="strategy divided",
                advice="list some of 0 to 4, or give the strategy its `bucket`.",
            )
        return without_ladder(changed(treatment, "training_sets", buckets=buckets))

    def training_set(self, asked: int | str, own: Sequence[int | str] | None) -> int | str:  # noqa: ARG002
        """Its own bucket, or the axis's, which must be a single one."""
        data = asked if self.bucket is None else self.bucket
        if data not in (0, 1, 2, 3, 4):
            raise UserError(
                f"axes.data has {data}, and it takes single buckets",
                place="strategy divided",
                value=data,
                advice="list some of 0 to 4, or give the strategy its `bucket`.",
            )
        return data
