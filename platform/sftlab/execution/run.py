"""Builds what a study lacks, stage by stage. Finished steps are used and never computed again."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack, nullcontext

from sftlab.cluster.session import joins_first, ray_cluster
from sftlab.execution.build import Build
from sftlab.execution.repair import mending
from sftlab.store.record import Step
from sftlab.studies.knowledge.check import check_base_model, check_base_tokenizer
from sftlab.studies.knowledge.pipeline import BUILDERS, NEEDS_RAY
from sftlab.studies.knowledge.plan import STAGES
from sftlab.studies.knowledge.sources import READS_MODEL


def found_text(build: Build, until: str = STAGES[-1]) -> str:
    """What a run up to a stage finds: '36 of 117 steps are HITs, 81 to build'."""
    stages = STAGES[: STAGES.index(until) + 1]
    steps = [step for step, _ in build.plan.steps() if step.stage in stages]
    with build.store.listed(*stages):
        lacking = len(build.missing(*steps))
    left = f", {lacking:,} to build" if lacking else ""
    return f"{len(steps) - lacking:,} of {len(steps):,} steps are HITs{left}"


def run_study(build: Build, until: str = STAGES[-1], waiting: Callable[[], None] | None = None) -> None:
    """Build every missing step up to and including the stage `until`.

    One stage is built for all cells before the next begins, so that engines and worker groups start once.
    A killed run goes on from its last committed piece when it is called again. Where another run builds in the
    same store, calls `waiting` and waits for it, or raises UserError if that is None. A bad base model, a
    tokenizer that does not read text as its file does, and missing GPUs are reported (UserError) before the first
    stage. Damaged results are set aside and built again.
    """
    plan = build.plan
    wanted = STAGES[: STAGES.index(until) + 1]
    by_stage: dict[str, list[Step]] = {stage: [] for stage in STAGES}
    for step, _ in plan.steps():
        by_stage[step.stage].append(step)
    with build.store.listed(*STAGES):
        lacking = {stage for stage in wanted if build.missing(*by_stage[stage])}
    if not lacking:
        return
    plan.sources.require()
    if plan.spec.model is not None and lacking & READS_MODEL:
        check_base_model(plan.spec.model, plan.spec.engine, plan.spec.sft)
        if lacking & NEEDS_RAY and (lost := check_base_tokenizer(plan.spec)):
            build.progress.say(f"{plan.spec.model.path}: the tokenizer does not keep {', '.join(lost)}")
    with build.store.exclusive(waiting), ExitStack() as session:
        ray_runs = False
        early = bool(lacking & NEEDS_RAY) and joins_first(build.runtime)

        def build_stages() -> None:
            nonlocal ray_runs
            for stage in wanted:
                with build.store.listed(stage):
                    missing = build.lacking(*by_stage[stage])
                if not missing:
                    continue
                if (early or stage in NEEDS_RAY) and not ray_runs:
                    session.enter_context(ray_cluster(build.runtime, build.progress.say))
                    ray_runs = True
                for step in missing:
                    build.path(step).mkdir(parents=True, exist_ok=True)
                BUILDERS[stage](build)

        steps = [step for stage in wanted for step in by_stage[stage]]
        mending(build_stages, build.store, build.progress, lambda: steps, lambda _: nullcontext())
