"""What comes after the trials of a sweep: its tables, its report, and the recommended model as a folder.

The same sweep may run twice at once, so each is made with its lock held, and only where it is missing.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from sftlab.store.mirror import pull
from sftlab.store.record import Step
from sftlab.studies.knowledge.results.tables import Results
from sftlab.studies.knowledge.stages.best import best_folder, write_best
from sftlab.studies.knowledge.stages.finished import Finished
from sftlab.studies.knowledge.stages.report import FILE, write_report
from sftlab.studies.knowledge.stages.results import results_of
from sftlab.studies.knowledge.sweep.sweep import Sweep
from sftlab.sweeps.times import BEST, REPORT, TABLES, keeping, time_rows


def build_sweep_results(sweep: Sweep, finished: Finished) -> Results:
    """The tables of a sweep, made if they are missing."""

    def make() -> None:
        with sweep.progress.bar("statistics") as bar, keeping(sweep.folder, TABLES):
            results_of(finished, bar.update).write(sweep.store.path(finished.results))

    _once(sweep, finished.results, make)
    return Results.read(sweep.base.read(finished.results))


def build_sweep_report(sweep: Sweep, finished: Finished, results: Results) -> Path:
    """The report page, made if it is missing; the times in it are those of the trials that were run."""

    def make() -> None:
        with sweep.progress.bar("report"), keeping(sweep.folder, REPORT):
            write_report(finished, replace(results, times=time_rows(sweep.records)))

    _once(sweep, finished.report, make)
    return pull(sweep.store.path(finished.report) / FILE)


def build_sweep_best(sweep: Sweep, finished: Finished, results: Results) -> Path:
    """Folder of the recommended model: of the recommended group the one of the lowest seed."""

    def make() -> None:
        with keeping(sweep.folder, BEST):
            write_best(finished, results)
            sweep.sources.outside.require_unchanged(finished.best.stage)

    _once(sweep, finished.best, make)
    return sweep.base.read(finished.best, best_folder(finished, results).name)


def _once(sweep: Sweep, step: Step, make: Callable[[], None]) -> None:
    """Make a step that is missing. One that is there needs no lock: who may only read the store sees the report."""
    if not sweep.base.lacking(step):
        return
    with sweep.store.lock(step.lock):
        if sweep.base.lacking(step):
            make()
            sweep.store.commit(step)
