"""Tracking in MLflow: the only package that imports mlflow, and only when a study is logged.

`log_study` reads what is committed and writes what MLflow lacks: logging a study again changes nothing.
"""

from __future__ import annotations

from sftlab.tracking.client import TrackedStudy
from sftlab.tracking.models import FoundModel, artifact_of, best_restored_model
from sftlab.tracking.records import TrackedModel, TrackedTable, table_of
from sftlab.tracking.settings import TrackingSettings
from sftlab.tracking.sweep_client import TrackedSweep

__all__ = [
    "FoundModel",
    "TrackedModel",
    "TrackedStudy",
    "TrackedSweep",
    "TrackedTable",
    "TrackingSettings",
    "artifact_of",
    "best_restored_model",
    "table_of",
]
