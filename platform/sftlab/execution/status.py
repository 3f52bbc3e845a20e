"""What of a study is built, who builds in its store now, and what it still costs."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any

from sftlab.execution.cost import Cost, cost_text
from sftlab.execution.preview import PlannedStep, preview, total_cost
from sftlab.execution.runtime import Runtime
from sftlab.execution.stage import StudyPlan
from sftlab.store.artifact import Store
from sftlab.store.locks import Holder


@dataclass(frozen=True)
class StageStatus:
    """Steps of a stage: all, those that are built, begun or damaged, and the cost of those that are not built."""

    stage: str
    steps: int
    built: int
    begun: int
    damaged: int
    cost: Cost


@dataclass(frozen=True)
class Status:
    """The state of a study in its store. missing: files outside the store that the study names."""

    study: str
    store: str
    stages: tuple[StageStatus, ...]
    holders: tuple[Holder, ...]
    missing: tuple[str, ...]

    @property
    def steps(self) -> int:
        return sum(stage.steps for stage in self.stages)

    @property
    def to_build(self) -> int:
        return sum(stage.steps - stage.built for stage in self.stages)

    @property
    def cost(self) -> Cost:
        return sum((stage.cost for stage in self.stages), Cost())


def status_of(plan: StudyPlan, store: Store, runtime: Runtime) -> Status:
    """Look at every step of a study. Computes nothing and takes no lock."""
    shown = preview(plan, store, runtime)
    stages = [
        _of_stage(stage.name, [planned for planned in shown if planned.step.stage == stage.name])
        for stage in plan.stages
    ]
    there = tuple(stage for stage in stages if stage.steps)
    return Status(plan.name, str(store), there, tuple(store.holders()), tuple(plan.outside.missing()))


def _of_stage(name: str, steps: list[PlannedStep]) -> StageStatus:
    return StageStatus(
        stage=name,
        steps=len(steps),
        built=_count(step.hit for step in steps),
        begun=_count(step.begun for step in steps),
        damaged=_count(step.damage is not None for step in steps),
        cost=total_cost(steps),
    )


def _count(found: Iterable[bool]) -> int:
    return sum(found)


def status_json(status: Status) -> dict[str, Any]:
    """A status as JSON values."""
    return {
        "study": status.study,
        "store": status.store,
        "steps": status.steps,
        "built": status.steps - status.to_build,
        "stages": [asdict(stage) for stage in status.stages],
        "cost": asdict(status.cost),
        "running": [asdict(holder) for holder in status.holders],
        "missing": list(status.missing),
    }


def status_text(status: Status) -> str:
    """A status in lines: one a stage, then the whole, then who builds in the store."""
    width = max((len(stage.stage) for stage in status.stages), default=0)
    lines = [f"study {status.study} in {status.store}"]
    lines += [f"  {stage.stage:<{width}}  {_stage_text(stage)}" for stage in status.stages]
    cost = cost_text(status.cost)
    left = f"{status.to_build:,} to build{f': {cost}' if cost else ''}" if status.to_build else "finished"
    lines.append(f"{status.steps - status.to_build:,} of {status.steps:,} steps are built; {left}")
    lines += [f"not here yet: {path}" for path in status.missing]
    lines += [f"building now: {_holder_text(holder)}" for holder in status.holders]
    if not status.holders:
        lines.append("building now: nothing")
    return "\n".join(lines)


def _stage_text(stage: StageStatus) -> str:
    counts = [f"{stage.built:,} of {stage.steps:,} built"]
    counts += [f"{stage.begun:,} begun"] if stage.begun else []
    counts += [f"{stage.damaged:,} damaged"] if stage.damaged else []
    cost = cost_text(stage.cost)
    return f"{', '.join(counts)}{f'; to build: {cost}' if cost else ''}"


def _holder_text(holder: Holder) -> str:
    kind = "a sweep" if holder.shared else "a study"
    return f"{kind}, process {holder.process} on {holder.host} since {holder.since}"
