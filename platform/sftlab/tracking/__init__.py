"""Tracking in MLflow: the only package that imports mlflow, and only when a study is logged.

`log_study` reads what is committed and writes what MLflow lacks: logging a study again changes nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from sftlab.analysis.results import StudyResults
from sftlab.tracking.client import TrackedStudy, write_study
from sftlab.tracking.records import TrackedTable, table_of
from sftlab.tracking.settings import TrackingSettings
from sftlab.tracking.study import TrackedModel, model_records, study_record

__all__ = ["TrackedModel", "TrackedStudy", "TrackedTable", "TrackingSettings", "log_study", "table_of"]


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
        store: root of the store; the sqlite file lies below it where the settings name no address.
        tables: the facts' splits, named as in `results.accuracy` (test, test_ood, dev, dev_ood).
        report: HTML page, kept as artifact of the parent run.
        progress: hears how many models stand in MLflow, and of how many.

    Raises:
        UserError: MLflow cannot be reached (found out within seconds), or refuses.
        ValueError: the recommended model is not among the models, or has no path.
    """
    study = study_record(results, models, tables, report)
    return write_study(study, model_records(results, models, tables), settings, store, progress)
