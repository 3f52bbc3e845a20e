"""What every stage of a survey is called with."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from sftlab.execution.build import Build
from sftlab.studies.survey.plan import SurveyPlan


@dataclass(frozen=True)
class SurveyBuild(Build):
    """A survey that is being built."""

    plan: SurveyPlan

    def base_folder(self, name: str) -> Path:
        """A base model: pre-trained here, or brought by the survey."""
        step = self.plan.bases.get(name)
        if step is not None:
            return self.path(step) / "model"
        return Path(self.plan.spec.bases.folders[name].path).resolve()  # workers have other working folders
