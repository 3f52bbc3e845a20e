"""The finished trials of a sweep, and the steps that rest on them: results, report and best model."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from sftlab.execution.release import release, unused
from sftlab.files import bytes_text
from sftlab.store.record import Step
from sftlab.studies.knowledge.pipeline import STAGES
from sftlab.studies.knowledge.results.tables import SWEEP
from sftlab.studies.knowledge.stages.finished import Finished, FinishedCell
from sftlab.studies.knowledge.sweep.sweep import Sweep, finished_trials
from sftlab.studies.knowledge.sweep.trial import steps_of
from sftlab.studies.knowledge.sweep.trials import Trial

REVISION = 8


def finish(sweep: Sweep, trials: Sequence[Trial]) -> Finished:
    """The sweep as far as these trials are finished."""
    found = []
    inputs = {"mastery": sweep.base.plan.mastery.id}
    for trial in trials:
        build = sweep.build(trial)
        (cell,) = build.plan.cells
        found.append(FinishedCell(trial.variant, trial.strategy, trial.settings, build, cell))
        ladder = ",".join(f"{p:g}" for p in cell.evaluations)
        inputs[f"{trial.name}/{ladder}/change"] = cell.change.id
        inputs[f"{trial.name}/{ladder}/controls"] = cell.controls.id
        inputs[f"{trial.name}/{ladder}/updates"] = cell.updates.id
        inputs |= {f"{trial.name}/{p:g}": step.id for p, step in cell.evaluations.items()}
    spec = {"sweep": sweep.id, "metric": sweep.spec.search.metric}
    results = Step("sweep-results", sweep.spec.name, spec, inputs, REVISION)
    best, report = (
        Step(stage, sweep.spec.name, {}, {"results": results.id}, REVISION)
        for stage in ("sweep-best", "sweep-report")
    )
    study = sweep.study.model_dump(mode="json", exclude={"plugins"})
    return Finished(
        kind=SWEEP,
        name=sweep.spec.name,
        spec={"sweep": sweep.spec.model_dump(mode="json"), "study": study},
        metric=sweep.spec.search.metric,
        base=sweep.base,
        cells=found,
        results=results,
        best=best,
        report=report,
    )


def steps_of_sweep(sweep: Sweep) -> Iterator[Step]:
    """All steps that a sweep has built or reads."""
    plan = sweep.base.plan
    yield from (
        step for step in (plan.facts, plan.model, plan.mastery, plan.base_evaluation) if step is not None
    )
    trials = finished_trials(sweep, list(sweep.listed()))
    for trial in trials:
        yield from steps_of(sweep.cell(trial))
    done = finish(sweep, trials)
    yield from (done.results, done.report, done.best)


def release_models(sweep: Sweep, trials: Sequence[Trial]) -> None:
    """Delete the tuned models of finished trials, where the runtime keeps recipes. Waits for other runs."""
    steps = [step for trial in trials for step in steps_of(sweep.cell(trial))]
    if sweep.runtime.keep != "recipe" or not unused(sweep.store, STAGES, steps):
        return

    def wait() -> None:
        sweep.progress.say(f"another run builds in {sweep.store}; waiting for it, to delete tuned models")

    with sweep.store.exclusive(wait):
        freed = release(sweep.store, STAGES, steps)
    sweep.progress.say(f"deleted {bytes_text(freed)} of tuned models (runtime.keep: recipe)")
