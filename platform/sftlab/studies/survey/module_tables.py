"""Tables of the change of weights by module and at one position, against gains, by base (Figure 5b). Rows as dicts."""

from __future__ import annotations

from typing import Any

import numpy as np

from sftlab.analysis.effects import PERMUTATIONS, Floats, fisher_mean
from sftlab.analysis.gains import STANDARDISED
from sftlab.analysis.layers import at_position
from sftlab.analysis.predictors import r_by_model
from sftlab.studies.survey.measures import Measures
from sftlab.studies.survey.similarity import ALL_MODELS
from sftlab.studies.survey.survey import Survey

Row = dict[str, Any]
POSITION = 0.6  # where the paper finds the strongest correlation
AT_POSITION = f"position {POSITION:g}"
FEWEST_SETS = 3


def changes_and_gains(survey: Survey, measures: Measures) -> list[Row]:
    """Of each base and set the relative change at POSITION, and the mean gain over benchmarks (Figure 5b)."""
    grid, gains = survey.grid, survey.gains[STANDARDISED].mean(axis=2)
    changes = measures.movement_of(grid.models, grid.sets, grid.condition)
    return [
        {
            "model": model,
            "data": data,
            "position": POSITION,
            "relative_change": float(change),
            "standardised_gain": float(gains[grid.models.index(model), d]),
        }
        for model, found in changes.items()
        for d, (data, change) in enumerate(zip(grid.sets, at_position(found, POSITION), strict=True))
    ]


def modules(survey: Survey, measures: Measures) -> list[Row]:
    """Of each base and part the mean relative change, and its r with the mean gain over sets; then means over bases.

    Parts are modules over all layers, and all modules at POSITION. A mean has a row where all bases have the part.
    Its r is a Fisher mean; null_low, null_high: 95 % of it with gains shuffled over the sets, alike in every base.
    """
    grid, gains = survey.grid, survey.gains[STANDARDISED].mean(axis=2)
    parts = _parts(survey, measures)
    if not parts or len(grid.sets) < FEWEST_SETS:
        return []
    rng = np.random.default_rng(survey.seed_for("modules"))
    orders = rng.random((PERMUTATIONS, len(grid.sets))).argsort(axis=1)
    common = [name for name in next(iter(parts.values())) if all(name in found for found in parts.values())]
    r = {
        model: {name: _r(change, gains[grid.models.index(model)][None])[0] for name, change in found.items()}
        for model, found in parts.items()
    }
    rows = [
        {
            "model": model,
            "part": name,
            "relative_change": float(change.mean()),
            "r_with_gain": float(r[model][name]),
            "null_low": None,
            "null_high": None,
        }
        for model, found in parts.items()
        for name, change in found.items()
    ]
    for name in common:
        shuffled = [
            _r(found[name], gains[grid.models.index(model)][orders]) for model, found in parts.items()
        ]
        low, high = np.quantile(fisher_mean(np.stack(shuffled), axis=0), [0.025, 0.975])
        rows.append(
            {
                "model": ALL_MODELS,
                "part": name,
                "relative_change": float(np.mean([found[name].mean() for found in parts.values()])),
                "r_with_gain": float(fisher_mean([r[model][name] for model in parts])),
                "null_low": float(low),
                "null_high": float(high),
            }
        )
    return rows


def _parts(survey: Survey, measures: Measures) -> dict[str, dict[str, Floats]]:
    """By base the change of each part by set: [sets]. Bases with a gap are left out."""
    grid = survey.grid
    by_layer = measures.movement_of(grid.models, grid.sets, grid.condition)
    found = {}
    for model, change in by_layer.items():
        by_set = [measures.modules[grid.condition.run(model, name)] for name in grid.sets]
        names = sorted(name for name in by_set[0] if all(name in one for one in by_set))
        parts = {name: np.array([one[name] for one in by_set], dtype=np.float64) for name in names}
        found[model] = {**parts, AT_POSITION: at_position(change, POSITION)}
    return found


def _r(change: Floats, gains: Floats) -> Floats:
    """Pearson r over the sets of one change with gains [rows, sets]: [rows]; NaN where one side does not vary."""
    if not np.isfinite(change).all() or np.ptp(change) == 0:
        return np.full(len(gains), np.nan)
    return r_by_model(change, gains)
