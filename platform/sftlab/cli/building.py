"""What the commands that build a study share: the last stage, the plan, early errors."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from sftlab.cli.common import Shown
from sftlab.errors import UserError

if TYPE_CHECKING:
    from sftlab.execution.build import Build
    from sftlab.execution.preview import PlannedStep
    from sftlab.execution.stage import Stage


def until_help(stages: Sequence[Stage]) -> str:
    """The help of --until."""
    *others, last = (stage.name for stage in stages)
    return f"Last stage to build: {', '.join(others)} or {last}."


def require_stage(until: str, stages: Sequence[Stage]) -> None:
    """Raises UserError where --until names no stage."""
    names = [stage.name for stage in stages]
    if until not in names:
        raise UserError("unknown stage", place=f"--until {until}", advice=f"stages are {', '.join(names)}.")


def refuse_early(build: Build) -> None:
    """Raises UserError for what a run would refuse before its first stage; notices go to standard error.

    Nothing is checked while a file is missing, which the plan lists, and where nothing is left to build.
    """
    plan = build.plan
    with build.store.listed(*(stage.name for stage in plan.stages)):
        missing = {step.stage for step, _ in plan.steps() if build.store.find(step) is None}
    lacking = [stage for stage in plan.stages if stage.name in missing]
    if lacking and not plan.outside.missing():
        plan.check(lacking, build.runtime, lambda line: print(line, file=sys.stderr))


def previewed(build: Build) -> list[PlannedStep]:
    """The steps of a study, whether each exists, and its cost; nothing is computed."""
    from sftlab.execution.preview import preview

    return preview(build.plan, build.store, build.runtime)


def plan_shown(
    kind: str, build: Build, steps: Sequence[PlannedStep], every_step: bool, by_default: bool
) -> Shown:
    """What a study has, lacks and will cost.

    kind: the key of the study's name in the JSON, `study` or `survey`. by_default: no runtime file was named.
    """
    from sftlab.execution.preview import plan_json, preview_text

    text = preview_text(build.plan, steps, every_step, by_default)
    return Shown({kind: build.plan.name, "store": str(build.store), **plan_json(steps)}, text)


def begun(kind: str, build: Build, until: str) -> dict[str, Any]:
    """Report what a run up to a stage finds; what its JSON begins with."""
    from sftlab.execution.run import found_text

    build.progress.say(found_text(build, until))
    return {kind: build.plan.name, "store": str(build.store), "until": until}


def build_until(build: Build, until: str) -> None:
    """Build up to a stage that is not the last one."""
    from sftlab.execution.run import run_study

    run_study(build, until)
    build.progress.say(f"built up to {until} in {build.store}")
