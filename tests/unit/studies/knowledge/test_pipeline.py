"""Every stage of the study is declared once, with a builder that exists."""

from __future__ import annotations

import inspect

import pytest

from sftlab.execution.stage import Stage, stages_until
from sftlab.studies.knowledge.pipeline import CELL_STAGES, LADDER_STAGES, STAGES


@pytest.mark.parametrize("stage", STAGES, ids=lambda stage: stage.name)
def test_the_builder_of_a_stage_takes_a_build_and_is_of_this_study(stage: Stage) -> None:
    function = stage.builder()
    assert function.__module__.startswith("sftlab.studies.knowledge.stages.")
    required = [p for p in inspect.signature(function).parameters.values() if p.default is p.empty]
    assert [p.annotation for p in required] == ["KnowledgeBuild"]


def test_what_stages_need_and_read() -> None:
    assert [stage.name for stage in STAGES if stage.needs_ray] == [
        "mastery",
        "tuned",
        "gradients",
        "evaluation",
        "mastery-after",
        "few-shot",
    ]
    assert [stage.name for stage in STAGES if stage.starts_engines] == [
        "mastery",
        "evaluation",
        "mastery-after",
        "few-shot",
    ]
    assert CELL_STAGES == ("training-set", "tuned", "change", "controls", "updates", "evaluation")
    assert set(LADDER_STAGES) < set(CELL_STAGES)
    assert {stage.name: stage.reads for stage in STAGES if stage.reads} == {
        "facts": ("facts",),
        **dict.fromkeys(
            (
                "mastery",
                "tuned",
                "change",
                "controls",
                "updates",
                "gradients",
                "evaluation",
                "mastery-after",
                "few-shot",
                "best",
            ),
            ("model",),
        ),
    }


def test_stages_up_to_one_include_it() -> None:
    assert [stage.name for stage in stages_until(STAGES, "mastery")] == ["facts", "model", "mastery"]
    assert stages_until(STAGES, None) == STAGES
