"""Edits of tuned models in a survey: rungs of restoration ladders, and methods that edit a tuned model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sftlab.errors import UserError
from sftlab.strategies import (
    RestoreSpec,
    TrainingSetsSpec,
    Treatment,
    edit_for,
    get_edit_strategy,
    get_strategy,
    source_of,
    with_method,
)
from sftlab.studies.survey.spec import LadderSpec, MethodSpec
from sftlab.training.spec import SFTSpec
from sftlab.weights.cut import percent_label

if TYPE_CHECKING:
    from sftlab.weights.cut import Cut
    from sftlab.weights.edits import Edit

BY_MASTERY = TrainingSetsSpec(
    buckets=(0, "mixed")
)  # a strategy that chooses training sets takes one of these


@dataclass(frozen=True)
class Rung:
    """An edit of a tuned model: a restoration, or another method, at a percentage above 0."""

    restore: RestoreSpec
    percent: float

    @property
    def label(self) -> str:
        return percent_label(self.percent)

    @property
    def needs_cut(self) -> bool:
        """Whether the edit takes the weights that changed most from a profile of the change."""
        method = self.restore.method
        return method is None or get_edit_strategy(method, self.restore.parameters).uses_cut

    def hashed(self) -> dict[str, Any]:
        """What the scores of the edited model depend on, which is its percentage and not the ladder."""
        kept = RestoreSpec.model_fields.keys() - {"percents"}
        return self.restore.model_dump(include=kept) | {"percent": self.percent}

    def ranked(self) -> dict[str, Any]:
        """What the profile of the change depends on."""
        kept = RestoreSpec.model_fields.keys() - {"method", "parameters"}
        return self.restore.model_dump(include=kept)

    def inputs(self) -> dict[str, str]:
        """The code of a custom strategy."""
        source = None if self.restore.method is None else source_of(self.restore.method)
        return {} if source is None else {"method": source}

    def edit(self, cuts: Mapping[str, Cut]) -> Edit | None:
        """What makes the model; `cuts` of the profile, empty where `needs_cut` is false."""
        return edit_for(self.restore, self.percent, cuts)


def rungs(ladder: LadderSpec) -> list[Rung]:
    """The percentages above 0, rising."""
    return [Rung(ladder, percent) for percent in ladder.percents if percent]


def treated(method: MethodSpec, sft: SFTSpec) -> tuple[SFTSpec, Rung | None]:
    """The settings of training under a method's strategy, and the edit of the tuned model.

    Raises UserError for a strategy that needs what a survey does not have, and for a percentage that is missing or
    without effect.
    """
    if method.strategy is None:
        return sft, None
    strategy = get_strategy(method.strategy, method.parameters)
    where = f"runs: method {method.name}"
    if strategy.has_ladder and not method.percent:
        raise UserError(
            f"strategy {method.strategy} edits the tuned model",
            place=where,
            advice="give it a `percent` above 0.",
        )
    if method.percent is not None and not strategy.has_ladder:
        raise UserError(
            f"strategy {method.strategy} changes fine-tuning", place=where, advice="it has no `percent`."
        )
    before = Treatment(
        sft=sft, restore=RestoreSpec(percents=(method.percent or 0,)), training_sets=BY_MASTERY
    )
    after = strategy.apply(before)
    if after.training_sets != BY_MASTERY:
        raise UserError(
            f"strategy {method.strategy} chooses training sets by mastery, which a survey does not measure",
            place=where,
            advice="list sets under `data` instead.",
        )
    if method.percent is None:
        return after.sft, None
    return after.sft, Rung(with_method(after.restore), method.percent)
