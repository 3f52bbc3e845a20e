"""Builds what a study lacks, stage by stage. Finished steps are used and never computed again."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack, nullcontext
from dataclasses import dataclass
from functools import cached_property
from typing import TypeVar

from sftlab.cluster.environment import check_environment
from sftlab.cluster.session import joins_first, ray_cluster
from sftlab.execution.build import Build
from sftlab.execution.release import needed_again, release, unused
from sftlab.execution.repair import repairing
from sftlab.execution.stage import Stage, stages_until
from sftlab.files import bytes_text
from sftlab.store.record import Step

Done = TypeVar("Done")
Waiting = Callable[[], None]


def found_text(build: Build, until: str | None = None) -> str:
    """What a run up to a stage finds: '36 of 117 steps are HITs, 81 to build'."""
    stages = {stage.name for stage in stages_until(build.plan.stages, until)}
    steps = [step for step, _ in build.plan.steps() if step.stage in stages]
    with build.store.listed(*stages):
        lacking = len(build.missing(*steps))
    left = f", {lacking:,} to build" if lacking else ""
    return f"{len(steps) - lacking:,} of {len(steps):,} steps are HITs{left}"


def run_study(build: Build, until: str | None = None, waiting: Waiting | None = None) -> None:
    """Build every missing step up to and including the stage `until`, the last one if None.

    One stage is built for all cells before the next begins, so that engines and worker groups start once.
    A killed run goes on from its last committed piece when it is called again. Where another run builds in the
    same store, calls `waiting` and waits for it, or raises UserError if that is None. What the plan checks and
    missing GPUs are reported (UserError) before the first stage. Damaged results are quarantined and built again.
    """
    finish_study(build, lambda: None, until, waiting)


def finish_study(
    build: Build, read: Callable[[], Done], until: str | None = None, waiting: Waiting | None = None
) -> Done:
    """`run_study`, then what `read` makes of the finished results; those that it finds damaged are built again too."""
    with ExitStack() as session:
        run = _Run(build, stages_until(build.plan.stages, until), waiting, session)

        def finish() -> Done:
            run.build_missing()
            return read()

        found = repairing(finish, build.store, build.progress, run.all_steps, run.guard)
        run.release()
        return found


@dataclass
class _Run:
    """One run up to a stage. It holds the store from the first missing step on, and Ray from the first need of it."""

    build: Build
    stages: Sequence[Stage]
    waiting: Waiting | None
    session: ExitStack
    holds_store: bool = False
    ray_runs: bool = False

    @cached_property
    def steps(self) -> dict[str, list[Step]]:
        """The steps of each stage, by its name."""
        found: dict[str, list[Step]] = {stage.name: [] for stage in self.stages}
        for step, _ in self.build.plan.steps():
            if step.stage in found:
                found[step.stage].append(step)
        return found

    def all_steps(self) -> list[Step]:
        return [step for steps in self.steps.values() for step in steps]

    def build_missing(self) -> None:
        """Build the missing steps of all stages."""
        build = self.build
        with build.store.listed(*self.steps):
            again = needed_again(build.store, self.stages, self.all_steps())
            stages = {step.stage for step in (*again, *build.missing(*self.all_steps()))}
        lacking = [stage for stage in self.stages if stage.name in stages]
        if not lacking:
            return
        if any(stage.needs_ray for stage in lacking):
            check_environment()
        build.plan.check(lacking, build.runtime, build.progress.say)
        self.hold_store(self.waiting)
        for step in again:
            build.progress.say(f"{step.stage}/{step.folder} was deleted to save space; built again")
            build.store.recall(step)
        early = any(stage.needs_ray for stage in lacking) and joins_first(build.runtime.most_bundles)
        for stage in self.stages:
            with build.store.listed(stage.name):
                missing = build.lacking(*self.steps[stage.name])
            if not missing:
                continue
            if early or stage.needs_ray:
                self.join_ray()
            for step in missing:
                build.path(step).mkdir(parents=True, exist_ok=True)
            stage.builder()(build)

    def release(self) -> None:
        """Delete the results that nothing of the study needs any more, where the runtime says so."""
        build, stages = self.build, self.build.plan.stages
        steps = [step for step, _ in build.plan.steps()]
        if build.runtime.keep != "recipe" or not unused(build.store, stages, steps):
            return
        self.hold_store(self.waiting)
        freed = release(build.store, stages, steps)
        build.progress.say(f"deleted {bytes_text(freed)} of tuned models (runtime.keep: recipe)")

    def hold_store(self, waiting: Waiting | None) -> None:
        """Keep other runs from building in the store until this run ends."""
        if not self.holds_store:
            self.session.enter_context(self.build.store.exclusive(waiting))
            self.holds_store = True

    def guard(self, _: Step) -> nullcontext[None]:
        """What `repairing` holds to quarantine a step; it waits for another run, which may repair the same step."""
        self.hold_store(self.waiting or (lambda: None))
        return nullcontext()

    def join_ray(self) -> None:
        if not self.ray_runs:
            runtime, say = self.build.runtime, self.build.progress.say
            cluster = ray_cluster(runtime.most_bundles, runtime.gpu_wait_minutes, runtime.logical_cpus, say)
            with self.build.progress.bar("starting Ray"):
                self.session.enter_context(cluster)
            self.ray_runs = True
