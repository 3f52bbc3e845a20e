"""What every stage of this study is called with."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from sftlab.execution.build import Build
from sftlab.studies.knowledge.plan import Plan


@dataclass(frozen=True)
class KnowledgeBuild(Build):
    """A study of knowledge that is being built."""

    plan: Plan

    @property
    def model_folder(self) -> Path:
        """The base model: pre-trained here, or brought by the study."""
        if self.plan.model is not None:
            return self.path(self.plan.model) / "model"
        assert self.plan.spec.model is not None
        return Path(self.plan.spec.model.path).resolve()  # workers have other working folders
