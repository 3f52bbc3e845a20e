"""The study on one page: its stages in the order in which they are built. Each is declared here and nowhere else."""

from __future__ import annotations

from sftlab.execution.stage import Stage

_STAGES = "sftlab.studies.knowledge.stages"

STAGES = (
    Stage("facts", 1, f"{_STAGES}.facts:build_facts", reads=("facts",)),
    Stage("model", 1, f"{_STAGES}.model:build_model"),
    Stage(
        "mastery",
        1,
        f"{_STAGES}.mastery:build_mastery",
        needs_ray=True,
        starts_engines="engine",
        reads=("model",),
    ),
    Stage("training-set", 2, f"{_STAGES}.training_sets:build_training_sets", per_cell=True),
    Stage(
        "tuned",
        2,
        f"{_STAGES}.tuned:build_tuned",
        needs_ray=True,
        reads=("model",),
        per_cell=True,
        remains=("model/training.json",),
    ),
    Stage("change", 1, f"{_STAGES}.change:build_changes", reads=("model",), per_cell=True),
    Stage("controls", 1, f"{_STAGES}.controls:build_controls", reads=("model",), per_cell=True),
    Stage("updates", 1, f"{_STAGES}.updates:build_updates", reads=("model",), per_cell=True),
    Stage("gradients", 1, f"{_STAGES}.gradients:build_gradients", needs_ray=True, reads=("model",)),
    Stage(
        "evaluation",
        1,
        f"{_STAGES}.evaluation:build_evaluations",
        needs_ray=True,
        starts_engines="engine",
        reads=("model",),
        per_cell=True,
    ),
    Stage(
        "mastery-after",
        1,
        f"{_STAGES}.mastery_after:build_mastery_after",
        needs_ray=True,
        starts_engines="engine",
        reads=("model",),
    ),
    Stage(
        "few-shot",
        1,
        f"{_STAGES}.few_shot:build_few_shot",
        needs_ray=True,
        starts_engines="engine",
        reads=("model",),
    ),
    Stage("results", 11, f"{_STAGES}.results:build_results"),
    Stage("best", 1, f"{_STAGES}.best:build_best", reads=("model",)),
    Stage("report", 2, f"{_STAGES}.report:build_report"),
)

CELL_STAGES = tuple(stage.name for stage in STAGES if stage.per_cell)
# Those whose results show that a cell is finished.
LADDER_STAGES = ("change", "controls", "updates", "evaluation")
