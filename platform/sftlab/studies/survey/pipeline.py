"""The survey on one page: its stages in the order in which they are built. Each is declared here and nowhere else."""

from __future__ import annotations

from sftlab.execution.stage import Stage

_STAGES = "sftlab.studies.survey.stages"

STAGES = (
    Stage("base", 1, f"{_STAGES}.bases:build_bases"),
    Stage("drawn", 1, f"{_STAGES}.drawn:build_drawn", reads=("data", "model")),
    Stage("questions", 1, f"{_STAGES}.questions:build_questions", reads=("benchmarks",)),
    Stage("survey-tuned", 1, f"{_STAGES}.tuned:build_tuned", needs_ray=True, reads=("model",)),
    Stage("movement", 1, f"{_STAGES}.movement:build_movement", reads=("model",)),
    Stage("change", 1, f"{_STAGES}.changes:build_changes", reads=("model",)),
    Stage(
        "scores",
        1,
        f"{_STAGES}.scores:build_scores",
        needs_ray=True,
        starts_engines="evaluation",
        reads=("model", "benchmarks"),
    ),
    Stage("geometry", 1, f"{_STAGES}.geometry:build_geometry", needs_ray=True, reads=("model",)),
    Stage("embedding", 1, f"{_STAGES}.embeddings:build_embeddings", reads=("model",)),
    Stage("survey-results", 8, f"{_STAGES}.results:build_results", reads=("benchmarks",)),
    Stage("survey-report", 10, f"{_STAGES}.report:build_report"),
)
