"""The stages of the study: their builders, and what each of them needs."""

from __future__ import annotations

from collections.abc import Callable

from sftlab.execution.build import Build
from sftlab.studies.knowledge.stages.best import build_best
from sftlab.studies.knowledge.stages.change import build_changes
from sftlab.studies.knowledge.stages.evaluation import build_evaluations
from sftlab.studies.knowledge.stages.facts import build_facts
from sftlab.studies.knowledge.stages.mastery import build_mastery
from sftlab.studies.knowledge.stages.model import build_model
from sftlab.studies.knowledge.stages.report import build_report
from sftlab.studies.knowledge.stages.results import build_results
from sftlab.studies.knowledge.stages.training_sets import build_training_sets
from sftlab.studies.knowledge.stages.tuned import build_tuned

BUILDERS: dict[str, Callable[[Build], None]] = {
    "facts": build_facts,
    "model": build_model,
    "mastery": build_mastery,
    "training-set": build_training_sets,
    "tuned": build_tuned,
    "change": build_changes,
    "evaluation": build_evaluations,
    "results": build_results,
    "best": build_best,
    "report": build_report,
}
NEEDS_RAY = frozenset({"mastery", "tuned", "evaluation"})
