"""Logs surveys to MLflow."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from sftlab.studies.survey.tracking.card import found_model, headline, model_card, note, registered_name
from sftlab.studies.survey.tracking.records import TrackedSurvey, parent_record, run_records
from sftlab.tracking.client import Champion, Tracked, write_results
from sftlab.tracking.settings import TrackingSettings


def log_survey(
    survey: TrackedSurvey,
    settings: TrackingSettings,
    store: Path,
    template: str,
    progress: Callable[[int, int], None] | None = None,
) -> Tracked:
    """Log a survey: a parent run, a child run a fine-tuning run and a base, a logged model a kept epoch.

    The best model of each base is uploaded and registered with the alias `champion`; all others stay in the store.
    Logging again writes only what is missing or has changed.

    Args:
        survey: what is logged; the best models' folders are on this machine.
        settings: where to log.
        store: root of the store; the sqlite file is below it where the settings name no address.
        template: what questions and examples are rendered by, for the model cards.
        progress: hears how many runs are in MLflow, and of how many.

    Raises UserError where MLflow cannot be reached or refuses; what is logged is kept.
    """
    champions = [_champion(survey, row, template) for row in survey.champions]
    record = parent_record(survey, note(survey))
    return write_results(record, run_records(survey), champions, settings, store, progress)


def _champion(survey: TrackedSurvey, row: Mapping[str, Any], template: str) -> Champion:
    run, model = found_model(survey, row)
    assert model.path is not None, "champions are no edits"
    name = registered_name(survey.name, run.base)
    card = model_card(survey, row, template)
    return Champion(name, run.key, model.id, model.path, card, headline(survey, row))
