"""The steps of a sweep: results, report and best model, and what they contain."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from sftlab.store.record import Step
from sftlab.studies.knowledge.build import KnowledgeBuild
from sftlab.studies.knowledge.plan import Cell
from sftlab.studies.knowledge.results.sweep_tables import SweepChoiceRow, SweepResults, Variant
from sftlab.studies.knowledge.stages.results import gather
from sftlab.studies.knowledge.sweep.sweep import Sweep, finished_trials
from sftlab.studies.knowledge.sweep.trial import steps_of
from sftlab.studies.knowledge.sweep.trials import Trial

REVISION = 3


@dataclass(frozen=True)
class SweepSteps:
    """The finished trials of a sweep, and the steps that rest on them."""

    sweep: Sweep
    trials: Sequence[Trial]

    @cached_property
    def found(self) -> list[tuple[Trial, KnowledgeBuild, Cell]]:
        """Every trial with its build and its one cell."""
        builds = [(trial, self.sweep.build(trial)) for trial in self.trials]
        return [(trial, build, build.plan.cells[0]) for trial, build in builds]

    @cached_property
    def results(self) -> Step:
        inputs = {"mastery": self.sweep.base.plan.mastery.id}
        for trial, _, cell in self.found:
            ladder = ",".join(f"{p:g}" for p in cell.evaluations)
            inputs[f"{trial.name}/{ladder}/change"] = cell.change.id
            inputs |= {f"{trial.name}/{p:g}": step.id for p, step in cell.evaluations.items()}
        spec = {"sweep": self.sweep.id, "metric": self.sweep.spec.search.metric}
        return Step("sweep-results", self.sweep.spec.name, spec, inputs, REVISION)

    @cached_property
    def best(self) -> Step:
        return Step("sweep-best", self.sweep.spec.name, {}, {"results": self.results.id}, REVISION)

    @cached_property
    def report(self) -> Step:
        return Step("sweep-report", self.sweep.spec.name, {}, {"results": self.results.id}, REVISION)

    def path(self, step: Step) -> Path:
        return self.sweep.store.path(step)

    def read(self, step: Step, name: str = "") -> Path:
        """Path of a committed step, or of a file in it, whose bytes are here and those recorded."""
        return self.sweep.base.read(step, name)

    @contextmanager
    def alone(self, step: Step) -> Iterator[bool]:
        """Hold a step's lock, as the same sweep may run twice at once; yields whether the step is missing."""
        with self.sweep.store.lock(step.lock):
            yield bool(self.sweep.base.lacking(step))


def steps_of_sweep(sweep: Sweep) -> Iterator[Step]:
    """All steps that a sweep has built or reads."""
    plan = sweep.base.plan
    yield from (
        step for step in (plan.facts, plan.model, plan.mastery, plan.base_evaluation) if step is not None
    )
    trials = finished_trials(sweep, list(sweep.listed()))
    for trial in trials:
        yield from steps_of(sweep.cell(trial))
    done = SweepSteps(sweep, trials)
    yield from (done.results, done.report, done.best)


def variants_of(
    steps: SweepSteps, progress: Callable[[float, float, str], None] | None = None
) -> list[Variant]:
    """The trials' tables, gathered by variant; `progress` receives done, of how many, and which."""
    grouped, variants = _by_variant(steps), []
    for done, (name, members) in enumerate(grouped.items()):
        if progress is not None:
            progress(done, len(grouped), name)
        tables = gather([(build, cell) for _, build, cell in members], name, steps.sweep.spec.search.metric)
        first = members[0][0]
        variants.append(Variant(name, first.strategy, _json(first.settings), tables))
    return variants


def recommended(results: SweepResults) -> SweepChoiceRow:
    return next(row for row in results.choice if row.scope == "recommended")


def champion(steps: SweepSteps, chosen: SweepChoiceRow) -> tuple[Trial, KnowledgeBuild, Cell]:
    """The trial behind the recommended group, of its seeds the lowest."""
    members = [
        (trial, build, cell)
        for trial, build, cell in steps.found
        if (trial.variant, str(trial.data), trial.size) == (chosen.variant, chosen.train_bucket, chosen.size)
        and chosen.percent in cell.evaluations
    ]
    return min(members, key=lambda member: member[0].seed)


def _by_variant(steps: SweepSteps) -> dict[str, list[tuple[Trial, KnowledgeBuild, Cell]]]:
    """The trials of each variant, in their order; a search may hold one twice, with other percentages."""
    found: dict[str, list[tuple[Trial, KnowledgeBuild, Cell]]] = {}
    for trial, build, cell in steps.found:
        found.setdefault(trial.variant, []).append((trial, build, cell))
    return found


def _json(settings: Mapping[str, Any]) -> dict[str, Any]:
    return {key: list(value) if isinstance(value, tuple) else value for key, value in settings.items()}
