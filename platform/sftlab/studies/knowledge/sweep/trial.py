"""One trial of a sweep: it builds what its cell lacks, with the shared engines and worker groups."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from sftlab.execution.progress import SilentProgress
from sftlab.execution.repair import repairing
from sftlab.inference.actors import result
from sftlab.store.record import Step
from sftlab.studies.knowledge.build import KnowledgeBuild
from sftlab.studies.knowledge.pipeline import CELL_STAGES
from sftlab.studies.knowledge.plan import Cell
from sftlab.studies.knowledge.results.choice import DEV_SPLITS, dev_scores
from sftlab.studies.knowledge.sources import Sources
from sftlab.studies.knowledge.spec import StudySpec
from sftlab.studies.knowledge.stages.change import build_change
from sftlab.studies.knowledge.stages.controls import build_cell_controls
from sftlab.studies.knowledge.stages.evaluation import evaluation_request
from sftlab.studies.knowledge.stages.mastery import buckets_of
from sftlab.studies.knowledge.stages.results import accuracy_of
from sftlab.studies.knowledge.stages.training_sets import build_training_sets
from sftlab.studies.knowledge.stages.tuned import commit_tuned, sft_run
from sftlab.studies.knowledge.stages.updates import build_cell_updates
from sftlab.studies.knowledge.sweep.spec import SweepSpec
from sftlab.studies.knowledge.sweep.trials import Trial, TrialMaker
from sftlab.sweeps.outcome import Outcome, StageTime, best_percent
from sftlab.sweeps.trial import TrialContext
from sftlab.training.records import SFTRun


class KnowledgeTrials(TrialMaker):
    """The trials of a sweep over a study of knowledge: `sweeps.trial.Trials`."""

    def __init__(self, sweep: SweepSpec, study: StudySpec, sources: Sources) -> None:
        super().__init__(sweep, study)
        self.sources = sources

    def __reduce__(self) -> tuple[Any, ...]:
        return KnowledgeTrials, (self.sweep, self.study, self.sources)

    def build(self, context: TrialContext, trials: Sequence[Trial]) -> list[Outcome]:
        """Build trials that differ in their seed alone; one worker group trains all of them.

        What another trial builds at this moment is waited for. Damaged results are quarantined and built again.
        Raises UserError where a cell cannot be built; what is finished stays committed.
        """
        builds = [
            KnowledgeBuild(trial.plan(self.sources), context.store, context.runtime, SilentProgress())
            for trial in trials
        ]
        if len(builds) > 1:
            for build in builds:
                _draw(build, build.plan.cells[0], StageTime())
            runs = [run for run in map(first_run, builds) if run is not None]
            result(context.pool("training").submit.remote(runs))
        return [build_trial(context, build) for build in builds]


def build_trial(context: TrialContext, build: KnowledgeBuild) -> Outcome:
    """Build what the one cell of a trial lacks, and score it; see `KnowledgeTrials.build`."""
    (cell,) = build.plan.cells
    return repairing(
        lambda: _build_cell(context, build, cell),
        build.store,
        build.progress,
        lambda: steps_of(cell),
        lambda step: build.store.lock(step.lock),
    )


def first_run(build: KnowledgeBuild) -> SFTRun | None:
    """The fine-tuning that a trial begins with, that of its probe if it has one; None where it is finished."""
    (cell,) = build.plan.cells
    first = cell.probe or cell
    return sft_run(build, first) if build.missing(first.tuned) else None


def steps_of(cell: Cell) -> list[Step]:
    """All steps that a trial of this cell builds, those of its probe included."""
    before = [] if cell.probe is None else steps_of(cell.probe)
    measured = (cell.change, cell.controls, cell.updates)
    return [*before, cell.training_set, cell.tuned, *measured, *cell.evaluations.values()]


def _build_cell(context: TrialContext, build: KnowledgeBuild, cell: Cell) -> Outcome:
    times = {stage: StageTime() for stage in CELL_STAGES}
    _draw(build, cell, times["training-set"])
    for part in (cell.probe, cell):
        if part is not None:
            _train(context, build, part, times["tuned"])
            _profile(build, part, times["change"])
    _control(build, cell, times["controls"])
    _size(build, cell, times["updates"])
    _evaluate(context, build, cell, times["evaluation"])
    scores = trial_scores(build, cell, context.metric)
    percent = best_percent(scores)
    return Outcome(scores, percent, scores[percent], times)


def trial_scores(build: KnowledgeBuild, cell: Cell, metric: str) -> dict[float, float]:
    """The metric of every model of a ladder: shares in [0, 1]. Raises UserError where its splits were not asked."""
    buckets = {split: buckets_of(build, split) for split in DEV_SPLITS}
    by_split: dict[str, dict[float, float]] = {split: {} for split in DEV_SPLITS}
    for percent, step in cell.evaluations.items():
        for row in accuracy_of(build, None, None, step, buckets, DEV_SPLITS):
            if row.bucket is None:
                by_split[row.split][percent] = row.accuracy
    return dev_scores(cell.name, {split: scores for split, scores in by_split.items() if scores}, metric)


def _draw(build: KnowledgeBuild, cell: Cell, spent: StageTime) -> None:
    sets = [cell.training_set] if cell.probe is None else [cell.probe.training_set, cell.training_set]
    with _timed(spent), build.store.lock(*(step.lock for step in sets)):
        spent.hits += len(sets) - len(build.lacking(*sets))
        build_training_sets(build)


def _train(context: TrialContext, build: KnowledgeBuild, cell: Cell, spent: StageTime) -> None:
    if not build.missing(cell.tuned):
        spent.hits += 1
        return
    with build.store.lock(cell.tuned.lock):
        build.lacking(cell.tuned)
    with _timed(spent) as waited:
        waited.worked = result(context.pool("training").train.remote(sft_run(build, cell)))
        with build.store.lock(cell.tuned.lock):
            if build.missing(cell.tuned):
                commit_tuned(build, cell)


def _profile(build: KnowledgeBuild, cell: Cell, spent: StageTime) -> None:
    with _timed(spent), build.store.lock(cell.change.lock):
        if build.lacking(cell.change):
            build_change(build, cell)
        else:
            spent.hits += 1


def _control(build: KnowledgeBuild, cell: Cell, spent: StageTime) -> None:
    with _timed(spent), build.store.lock(cell.controls.lock):
        if build.lacking(cell.controls):
            build_cell_controls(build, cell)
        else:
            spent.hits += 1


def _size(build: KnowledgeBuild, cell: Cell, spent: StageTime) -> None:
    with _timed(spent), build.store.lock(cell.updates.lock):
        if build.lacking(cell.updates):
            build_cell_updates(build, cell)
        else:
            spent.hits += 1


def _evaluate(context: TrialContext, build: KnowledgeBuild, cell: Cell, spent: StageTime) -> None:
    from sftlab.inference.evaluator import drop_pieces

    wanted = list(cell.evaluations.values())
    missing = build.missing(*wanted)
    spent.hits += len(wanted) - len(missing)
    if not missing:
        return
    with _timed(spent) as waited, build.store.lock(*(step.lock for step in missing)):
        build.lacking(*missing)
        steps, request = evaluation_request(build)
        waited.worked = result(context.pool("engines").evaluate.remote(request)) if request.items else 0.0
        for item in request.items:
            build.commit(steps[item.id])
        drop_pieces(request)


@dataclass
class _Waited:
    """Seconds of the work itself, where it was done by a pool; None where it was done here."""

    worked: float | None = None


@contextmanager
def _timed(spent: StageTime) -> Iterator[_Waited]:
    started, waited = time.monotonic(), _Waited()
    try:
        yield waited
    finally:
        seconds = time.monotonic() - started
        spent.seconds += seconds
        spent.queued += 0.0 if waited.worked is None else max(0.0, seconds - waited.worked)
