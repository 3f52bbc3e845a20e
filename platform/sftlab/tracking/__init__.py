"""Tracking in MLflow: the only package that imports mlflow, and only when a study is logged.

Logging reads what is committed and writes what MLflow lacks: logging again changes nothing.
"""

from __future__ import annotations

from sftlab.tracking.client import Tracked
from sftlab.tracking.models import FoundModel, artifact_of, best_restored_model
from sftlab.tracking.records import TrackedModel, TrackedTable, table_of
from sftlab.tracking.settings import TrackingSettings

__all__ = [
    "FoundModel",
    "Tracked",
    "TrackedModel",
    "TrackedTable",
    "TrackingSettings",
    "artifact_of",
    "best_restored_model",
    "table_of",
]
