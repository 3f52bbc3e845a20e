"""Tables of gains and of how models, sets and benchmarks agree, from a survey: one function a table, rows as dicts."""

from __future__ import annotations

from typing import Any

import numpy as np

from sftlab.analysis import agreement, components, predictors, transfer
from sftlab.analysis.effects import mean_effect
from sftlab.analysis.gains import BASELINE_FREE, RAW, STANDARDISED, TREATMENTS, min_max_scaled
from sftlab.analysis.statistics import holm
from sftlab.analysis.variance import PARTS, variance_parts
from sftlab.studies.survey.survey import Survey

Row = dict[str, Any]
COMPONENT_DRAWS = 200


def gains(survey: Survey) -> list[Row]:
    """Every cell of the grid: scores and the gain in all treatments (Figure 2b)."""
    grid = survey.grid
    return [
        {
            "model": model,
            "data": data,
            "benchmark": benchmark,
            "base": grid.base[m, b],
            "score": grid.scores[m, d, b],
            **{_column(name): survey.gains[name][m, d, b] for name in TREATMENTS},
        }
        for m, model in enumerate(grid.models)
        for d, data in enumerate(grid.sets)
        for b, benchmark in enumerate(grid.benchmarks)
    ]


def mean_gains(survey: Survey) -> list[Row]:
    """Mean over models for each set and benchmark: raw, scaled by benchmark, standardised (Figure 2a)."""
    grid = survey.grid
    raw = survey.gains[RAW].mean(axis=0)
    scaled, standard = min_max_scaled(raw), survey.gains[STANDARDISED].mean(axis=0)
    better = (survey.gains[RAW] > 0).mean(axis=0)
    return [
        {
            "data": data,
            "benchmark": benchmark,
            "gain": raw[d, b],
            "scaled": scaled[d, b],
            "standardised": standard[d, b],
            "models_better": better[d, b],
        }
        for d, data in enumerate(grid.sets)
        for b, benchmark in enumerate(grid.benchmarks)
    ]


def sets(survey: Survey) -> list[Row]:
    """For each set its mean standardised gain over models and benchmarks, with interval and Holm-corrected p."""
    grid = survey.grid
    effects = {
        name: [
            mean_effect(by_model, ("models",), survey.seed_for("set", name, data))
            for data, by_model in zip(grid.sets, survey.gains[name].mean(axis=2).T, strict=True)
        ]
        for name in (STANDARDISED, BASELINE_FREE)
    }
    corrected = {name: holm([effect.p for effect in found]) for name, found in effects.items()}
    scaled = min_max_scaled(survey.gains[RAW].mean(axis=0)).mean(axis=1)
    means = [effect.value for effect in effects[STANDARDISED]]
    rows = []
    for d, data in enumerate(grid.sets):
        row: dict[str, Any] = {
            "data": data,
            "rank": 1 + sum(other > means[d] for other in means),
            "scaled": scaled[d],
            "positive_cells": float((survey.gains[RAW][:, d] > 0).mean()),
            "positive_benchmarks": int((survey.gains[RAW][:, d].mean(axis=0) > 0).sum()),
        }
        for name in effects:
            effect = effects[name][d]
            row |= {
                _column(name): effect.value,
                f"{_column(name)}_low": effect.low,
                f"{_column(name)}_high": effect.high,
                f"{_column(name)}_p": corrected[name][d],
                f"{_column(name)}_detectable": effect.detectable
                or None,  # gains without variance allow no statement
            }
        rows.append(row)
    return rows


def model_agreement(survey: Survey) -> list[Row]:
    """r between models, by treatment (Figure 2c)."""
    grid = survey.grid
    rows = []
    for name in TREATMENTS:
        matrix = agreement.model_correlations(survey.gains[name])
        rows += [
            {
                "treatment": name,
                "first": grid.models[i],
                "second": grid.models[j],
                "same_family": survey.families[i] == survey.families[j],
                "same_language": survey.languages[i] == survey.languages[j],
                "r": matrix[i, j],
            }
            for i in range(len(grid.models))
            for j in range(i)
        ]
    return rows


def component_shares(survey: Survey) -> list[Row]:
    """Cumulative explained variance by treatment, with the null of shuffled sets (Figure 2d)."""
    rows = []
    for name in TREATMENTS:
        shares = components.explained(survey.gains[name])
        null = components.explained_null(
            survey.gains[name], survey.seed_for("components", name), COMPONENT_DRAWS
        )
        for k, share in enumerate(shares):
            low, high = np.quantile(null[:, k], [0.025, 0.975])
            rows.append(
                {
                    "treatment": name,
                    "components": k + 1,
                    "explained": share,
                    "null": null[:, k].mean(),
                    "null_low": low,
                    "null_high": high,
                }
            )
    return rows


def inner_structure(survey: Survey, of: str) -> list[Row]:
    """r between benchmarks over sets, or between sets over benchmarks, for each model (Figures 3a and 3b).

    Args:
        of: "benchmarks" or "sets".
    """
    grid = survey.grid
    make = {"benchmarks": agreement.benchmark_correlations, "sets": agreement.set_correlations}[of]
    names = {"benchmarks": grid.benchmarks, "sets": grid.sets}[of]
    matrices = make(survey.gains[RAW])
    free = make(survey.gains[BASELINE_FREE])
    return [
        {
            "model": model,
            "first": names[i],
            "second": names[j],
            "r": matrices[m, i, j],
            "r_baseline_free": free[m, i, j],
        }
        for m, model in enumerate(grid.models)
        for i in range(len(names))
        for j in range(i)
    ]


def structure(survey: Survey) -> list[Row]:
    """r between models of their benchmark and set structure, by treatment (Figures 3c and 3d)."""
    grid = survey.grid
    rows = []
    for name in TREATMENTS:
        cells = survey.gains[name]
        by_benchmark = agreement.structure_agreement(agreement.benchmark_correlations(cells))
        by_set = agreement.structure_agreement(agreement.set_correlations(cells))
        rows += [
            {
                "treatment": name,
                "first": grid.models[i],
                "second": grid.models[j],
                "benchmarks": by_benchmark[i, j],
                "sets": by_set[i, j],
            }
            for i in range(len(grid.models))
            for j in range(i)
        ]
    return rows


def structure_tests(survey: Survey) -> list[Row]:
    """The paper's paired t-test over pairs of models, by treatment (Figure 3d)."""
    rows = []
    for name in TREATMENTS:
        cells = survey.gains[name]
        by_benchmark = agreement.structure_agreement(agreement.benchmark_correlations(cells))
        by_set = agreement.structure_agreement(agreement.set_correlations(cells))
        test = agreement.paired_t(by_benchmark, by_set)
        rows.append(
            {
                "treatment": name,
                "benchmarks": agreement.lower_triangle(by_benchmark).mean(),
                "sets": agreement.lower_triangle(by_set).mean(),
                "t": test.t,
                "p": test.p,
                "pairs": test.pairs,
            }
        )
    return rows


def variance(survey: Survey) -> list[Row]:
    """Three-way decomposition by treatment."""
    return [
        {"treatment": name, "part": part, "share": shares[part]}
        for name in TREATMENTS
        for shares in [variance_parts(survey.gains[name])]
        for part in PARTS
    ]


def lengths(survey: Survey) -> list[Row]:
    """r of the sets' length with the mean gain, for each model (Figure 4b); empty where lengths are unknown."""
    known = set_lengths(survey)
    if known is None:
        return []
    cells = survey.gains[STANDARDISED].mean(axis=2)
    raw = survey.gains[RAW].mean(axis=2)
    plain = predictors.r_by_model(known, cells)
    logs, raws = predictors.r_by_model(np.log(known), cells), predictors.r_by_model(known, raw)
    rows = [
        {"model": model, "r": plain[m], "r_log_length": logs[m], "r_raw_gain": raws[m]}
        for m, model in enumerate(survey.grid.models)
    ]
    mean = cells.mean(axis=0)[None]
    return [
        *rows,
        {
            "model": "mean of all models",
            "r": predictors.r_by_model(known, mean)[0],
            "r_log_length": predictors.r_by_model(np.log(known), mean)[0],
            "r_raw_gain": predictors.r_by_model(known, raw.mean(axis=0)[None])[0],
        },
    ]


def length_points(survey: Survey) -> list[Row]:
    """Of each model and set the length of the set and the mean standardised gain (Figure 4b)."""
    known = set_lengths(survey)
    if known is None:
        return []
    cells = survey.gains[STANDARDISED].mean(axis=2)
    return [
        {"model": model, "data": data, "length": float(known[d]), "standardised_gain": float(cells[m, d])}
        for m, model in enumerate(survey.grid.models)
        for d, data in enumerate(survey.grid.sets)
    ]


def set_lengths(survey: Survey) -> np.ndarray[Any, np.dtype[np.float64]] | None:
    """The length of each set of the grid; None where one is unknown, all are equal or there are less than three."""
    known = survey.about.data
    found = [known[name].length if name in known else None for name in survey.grid.sets]
    if None in found or len(set(found)) < 2 or len(found) < 3:
        return None
    return np.array(found, dtype=np.float64)


def language_transfer(survey: Survey) -> list[Row]:
    """r between benchmarks with the same questions in several languages, by the models' language (Figure A.1)."""
    names = transfer_benchmarks(survey)
    if len(names) < 2:
        return []
    at = survey.benchmarks_at(list(names))
    values = {name: survey.gains[name][..., at] for name in TREATMENTS}
    values["scores"] = survey.grid.scores[..., at]
    rows = []
    for name, cells in values.items():
        for group, matrix in transfer.group_correlations(cells, survey.languages).items():
            rows += [
                {
                    "treatment": name,
                    "models": group,
                    "first": list(names)[i],
                    "second": list(names)[j],
                    "r": matrix[i, j],
                }
                for i in range(len(names))
                for j in range(i)
            ]
    return rows


def transfer_benchmarks(survey: Survey) -> dict[str, str]:
    """The benchmarks of the grid that have a language, and their language."""
    known = survey.about.benchmarks
    return {
        name: language
        for name in survey.grid.benchmarks
        if name in known and (language := known[name].transfer) is not None
    }


def _column(treatment: str) -> str:
    return treatment.replace("-", "_")
