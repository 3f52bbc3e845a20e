"""Logs studies, sweeps and trials to MLflow."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TypedDict, Unpack

from sftlab.studies.knowledge.results.tables import Results
from sftlab.studies.knowledge.tracking.card import headline
from sftlab.studies.knowledge.tracking.runs import (
    base_record,
    parent_record,
    trial_key,
    trial_records,
)
from sftlab.tracking.client import Champion, Tracked, write_results, write_trials
from sftlab.tracking.records import ParentRecord, TrackedModel, TrackedTable
from sftlab.tracking.settings import TrackingSettings


class Attached(TypedDict, total=False):
    """What a study or a sweep has besides its results.

    Keys:
        tables: the facts' splits, named as in the accuracy tables (test, test_ood, dev, dev_ood).
        report: HTML page, kept as artifact of the parent run.
        card: `model_card` of the recommended model, uploaded with its files as README.md.
        progress: hears how many trials are in MLflow, and of how many.
    """

    tables: Sequence[TrackedTable]
    report: Path | None
    card: str
    progress: Callable[[int, int], None] | None


def log_results(
    results: Results,
    base: TrackedModel,
    models: Mapping[str, Sequence[TrackedModel]],
    key: str,
    settings: TrackingSettings,
    store: Path,
    **attached: Unpack[Attached],
) -> Tracked:
    """Log a study or a sweep: a parent run, a child run a trial, under it a logged model for every step of its ladder.

    A trial is found again by its variant, its cell and its tuned model, so what has grown adds its new
    trials; a trial whose ladder or numbers have changed is replaced. Where a model is recommended
    (`Results.recommended`), its files are uploaded and it is registered under its name with the alias
    `champion`; all others stay recipes.

    Args:
        results: the tables.
        base: the base model.
        models: the models of every trial, by variant; the recommended one with its path.
        key: what the parent run is found again by (`parent_key`).
        settings: where to log.
        store: root of the store; the sqlite file is below it where the settings name no address.
        attached: `Attached`.

    Raises:
        UserError: MLflow cannot be reached (found out within seconds), or refuses; what is logged is kept, and
            logging again completes it.
        ValueError: the recommended model is not among the models, or has no path.
    """
    tables = attached.get("tables", ())
    trials = trial_records(results, models, tables)
    found = _champion(results, models, attached.get("card", ""))
    champions = () if found is None else (found,)
    record = parent_record(key, results, trials, tables, attached.get("report"))
    records = [base_record(results, base, tables), *trials]
    return write_results(record, records, champions, settings, store, attached.get("progress"))


def log_trials(
    results: Results,
    models: Mapping[str, Sequence[TrackedModel]],
    key: str,
    settings: TrackingSettings,
    store: Path,
    tables: Sequence[TrackedTable] = (),
) -> Sequence[str]:
    """Log some trials of a sweep that still runs, below its parent run; returns the keys of those written.

    `results` holds the variants' tables of these trials; what `log_results` says of them later is the same, so that
    it finds them in place. Arguments and errors as there.
    """
    record = ParentRecord(key, results.name, {}, {}, (), (), kind=results.kind)
    return write_trials(record, trial_records(results, models, tables), settings, store)


def _champion(results: Results, models: Mapping[str, Sequence[TrackedModel]], card: str) -> Champion | None:
    best = results.recommended()
    if best is None:
        return None
    variant, cell, percent = best.model
    ladder = [model for model in models.get(variant, ()) if model.cell == cell]
    found = next((model for model in ladder if model.percent == percent), None)
    if found is None or found.path is None:
        raise ValueError(f"the recommended model {best.model} is not among the models to log, or has no path")
    tuned = min(ladder, key=lambda model: model.percent or 0.0)
    key = trial_key(variant, cell, tuned)
    return Champion(results.name, key, found.id, found.path, card, headline(results, best))
