"""Logs studies, sweeps and trials to MLflow."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from sftlab.studies.knowledge.results.sweep_tables import SweepResults
from sftlab.studies.knowledge.results.tables import StudyResults
from sftlab.studies.knowledge.tracking.card import headline
from sftlab.studies.knowledge.tracking.study import model_records, study_record
from sftlab.studies.knowledge.tracking.sweep import (
    base_record,
    recommended_model,
    sweep_record,
    trial_key,
    trial_records,
)
from sftlab.tracking.client import TrackedStudy, write_study
from sftlab.tracking.records import StudyRecord, TrackedModel, TrackedTable
from sftlab.tracking.settings import TrackingSettings
from sftlab.tracking.sweep_client import Champion, TrackedSweep, write_sweep, write_trials


def log_study(
    results: StudyResults,
    models: Sequence[TrackedModel],
    settings: TrackingSettings,
    store: Path,
    tables: Sequence[TrackedTable] = (),
    report: Path | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> TrackedStudy:
    """Log a study: a parent run, a child run a model, a logged model for each tuned and restored one.

    A study is found again by name, model and spec (less the grid of training sets and percentages), a model
    by its content hash, so a study that has grown adds its new models alone. The files of the recommended
    model (`results.choice`) are uploaded, those of the others stay where they are.

    Args:
        results: the committed result tables.
        models: the base model and every tuned and restored one; the recommended one with its path.
        settings: where to log.
        store: root of the store; the sqlite file is below it where the settings name no address.
        tables: the facts' splits, named as in `results.accuracy` (test, test_ood, dev, dev_ood).
        report: HTML page, kept as artifact of the parent run.
        progress: hears how many models are in MLflow, and of how many.

    Raises:
        UserError: MLflow cannot be reached (found out within seconds), or refuses.
        ValueError: the recommended model is not among the models, or has no path.
    """
    study = study_record(results, models, tables, report)
    return write_study(study, model_records(results, models, tables), settings, store, progress)


def log_sweep(
    results: SweepResults,
    base: TrackedModel,
    models: Mapping[str, Sequence[TrackedModel]],
    key: str,
    settings: TrackingSettings,
    store: Path,
    tables: Sequence[TrackedTable] = (),
    report: Path | None = None,
    card: str = "",
    progress: Callable[[int, int], None] | None = None,
) -> TrackedSweep:
    """Log a sweep: a parent run, a child run a trial, and under it a logged model for every step of its ladder.

    A trial is found again by its variant, its cell and its tuned model, so a sweep that has grown adds its new
    trials; a trial whose ladder or numbers have changed is replaced. Where a model is recommended
    (`recommended_model`), its files are uploaded and it is registered under the sweep's name with the alias
    `champion`; all others stay recipes.

    Args:
        results: the tables of the sweep.
        base: the base model.
        models: the models of every trial, by variant; the recommended one with its path.
        key: what the parent run is found again by (`sweep_key`).
        settings: where to log.
        store: root of the store; the sqlite file is below it where the settings name no address.
        tables: the facts' splits, named as in the accuracy tables (test, test_ood, dev, dev_ood).
        report: HTML page, kept as artifact of the parent run.
        card: `model_card` of the recommended model, uploaded with its files as README.md.
        progress: hears how many trials are in MLflow, and of how many.

    Raises:
        UserError: MLflow cannot be reached (found out within seconds), or refuses; what is logged is kept, and
            logging again completes it.
        ValueError: the recommended model is not among the models, or has no path.
    """
    trials = trial_records(results, models, tables)
    champion = _champion(results, models, card)
    record = sweep_record(key, results, trials, tables, report)
    return write_sweep(
        record, [base_record(results, base, tables), *trials], champion, settings, store, progress
    )


def log_trials(
    results: SweepResults,
    models: Mapping[str, Sequence[TrackedModel]],
    key: str,
    settings: TrackingSettings,
    store: Path,
    tables: Sequence[TrackedTable] = (),
) -> Sequence[str]:
    """Log some trials of a sweep that still runs, below its parent run; returns the keys of those written.

    `results` holds the variants' tables of these trials; what `log_sweep` says of them later is the same, so that
    it finds them in place. Arguments and errors as there.
    """
    record = StudyRecord(key, results.name, {}, {}, (), ())
    return write_trials(record, trial_records(results, models, tables), settings, store)


def _champion(
    results: SweepResults, models: Mapping[str, Sequence[TrackedModel]], card: str
) -> Champion | None:
    best = recommended_model(results)
    if best is None:
        return None
    ladder = [model for model in models.get(best.variant, ()) if model.cell == best.cell]
    found = next((model for model in ladder if model.percent == best.percent), None)
    if found is None or found.path is None:
        raise ValueError(f"the recommended model {best} is not among the models to log, or has no path")
    tuned = min(ladder, key=lambda model: model.percent or 0.0)
    key = trial_key(best.variant, best.cell, tuned)
    return Champion(key, found.id, found.path, card, headline(results, best))
