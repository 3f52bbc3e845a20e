"""What the surveys of a store say about gains: perplexity and length of a set before training, and its gain after."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from sftlab.analysis.gains import STANDARDISED
from sftlab.analysis.ranking import Known
from sftlab.config.documents import parse_json
from sftlab.errors import UserError
from sftlab.store.artifact import Store
from sftlab.store.mirror import pull
from sftlab.store.record import Record
from sftlab.studies.survey.about import parse_about
from sftlab.studies.survey.measures import read_measures
from sftlab.studies.survey.score_table import read_scores
from sftlab.studies.survey.stages.results import ABOUT, SCORES
from sftlab.studies.survey.survey import open_survey

PREDICTORS = ("response", "tokens")  # of `measures.perplexity_schema`, in logarithms


@dataclass(frozen=True)
class KnownGains:
    """Rows to predict from, the surveys that they are of, and why a survey of the store has none."""

    known: Known
    surveys: tuple[str, ...]
    left_out: tuple[str, ...]


def known_gains(store: Store) -> KnownGains:
    """The mean standardised gains of the main grids of all surveys of a store, with what was known before training.

    Of a survey that has grown the largest result counts.
    """
    rows: list[tuple[str, str, list[float], float]] = []
    names, left_out = [], []
    for record in _largest(store.records("survey-results")):
        folder = pull(store.path(record.step))
        found, reason = _rows(folder, record)
        rows += found
        if found:
            names.append(record.slug)
        else:
            left_out.append(f"{record.slug}: {reason}")
    predictors = np.array([row[2] for row in rows], dtype=np.float64).reshape(len(rows), len(PREDICTORS))
    gains = np.array([row[3] for row in rows], dtype=np.float64)
    known = Known([row[0] for row in rows], [row[1] for row in rows], predictors, gains)
    return KnownGains(known, tuple(names), tuple(left_out))


def _largest(records: Sequence[Record]) -> list[Record]:
    """Of results of one name the one that is made of most."""
    found: dict[str, Record] = {}
    for record in records:
        if record.slug not in found or len(record.inputs) > len(found[record.slug].inputs):
            found[record.slug] = record
    return list(found.values())


def _rows(folder: Path, record: Record) -> tuple[list[tuple[str, str, list[float], float]], str]:
    """Of each base and set: their names, the predictors and the gain; without rows the reason."""
    about = folder / ABOUT
    document = parse_json(about.read_bytes(), str(about), "run the survey again.")
    try:
        survey = open_survey(read_scores(folder / SCORES), parse_about(document, str(about)))
    except UserError as error:  # no complete grid: the survey says nothing about gains
        return [], str(error)
    measures, grid = read_measures(folder), survey.grid
    values = [measures.perplexity_of(grid, name) for name in PREDICTORS]
    if any(value is None for value in values):
        return [], "has no perplexity of every set under every base"
    logs = np.log(np.stack([np.asarray(value) for value in values], axis=-1))  # [models, sets, predictors]
    if not np.isfinite(logs).all():
        return [], "has a perplexity that is not finite"
    gains = survey.gains[STANDARDISED].mean(axis=2)
    return [
        (f"{record.slug}/{model}", f"{record.slug}/{data}", logs[m, d].tolist(), float(gains[m, d]))
        for m, model in enumerate(grid.models)
        for d, data in enumerate(grid.sets)
    ], ""
