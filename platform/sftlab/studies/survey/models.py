"""The models of a survey, with the steps that make and measure them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sftlab.store.record import Step
from sftlab.studies.survey.ladders import Rung
from sftlab.studies.survey.pipeline import STAGES
from sftlab.studies.survey.runs import Run

MODEL = "model"  # the folder of a tuned model in its result
REVISIONS = {stage.name: stage.revision for stage in STAGES}


def step_of(stage: str, slug: str, spec: Mapping[str, Any], inputs: Mapping[str, str]) -> Step:
    """A step of a stage, at its revision."""
    return Step(stage, slug, spec, dict(inputs), REVISIONS[stage])


@dataclass(frozen=True)
class Model:
    """A model that is scored: a base, a run after one of its epochs, or an edit of such a model.

    movement: how far its weights are from those of the base; scores: a step for each benchmark; rung: the edit, and
    change: where it takes its weights from, for an edit that needs it.
    """

    base: str
    run: Run | None
    epoch: int
    tuned: Step | None
    movement: Step | None
    scores: Mapping[str, Step]
    rung: Rung | None = None
    change: Step | None = None

    @property
    def name(self) -> str:
        rung = "" if self.rung is None else f"-r{self.rung.label}"
        return self.base if self.run is None else f"{self.run.name}-e{self.epoch}{rung}"
