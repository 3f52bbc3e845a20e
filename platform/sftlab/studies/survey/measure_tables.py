"""Tables of what a survey measured besides scores: form and accuracy, changes of weights by layer. Rows as dicts."""

from __future__ import annotations

from typing import Any

import numpy as np

from sftlab.analysis.effects import fisher_mean, mean_effect
from sftlab.analysis.form import gain_parts
from sftlab.analysis.gains import STANDARDISED
from sftlab.analysis.layers import (
    POINTS,
    cross_model,
    gain_correlations,
    mean_correlation,
    on_grid,
    positions,
)
from sftlab.analysis.predictors import mean_r_of_each_p, r_by_model, r_of_each
from sftlab.studies.survey.measures import Measures
from sftlab.studies.survey.survey import Survey

Row = dict[str, Any]
NULL_DRAWS = 500


def form_parts(survey: Survey, measures: Measures) -> list[Row]:
    """For each set its mean gain over models and benchmarks in points, split into form and accuracy given form."""
    found = measures.forms_of(survey.grid)
    if found is None:
        return []
    of_form, of_accuracy = (100 * part.mean(axis=2) for part in gain_parts(*found))  # [models, sets]
    rows = []
    for number, data in enumerate(survey.grid.sets):
        row: Row = {"data": data, "gain": float((of_form + of_accuracy)[:, number].mean())}
        for name, part in (("form", of_form), ("accuracy", of_accuracy)):
            effect = mean_effect(part[:, number], ("models",), survey.seed_for("form", name, data))
            row |= {
                name: effect.value,
                f"{name}_low": effect.low,
                f"{name}_high": effect.high,
                f"{name}_p": effect.p,
            }
        rows.append(row)
    return rows


def forms(survey: Survey, measures: Measures) -> list[Row]:
    """For each benchmark the share of answers in the asked form and the score of these, before and after (means)."""
    found = measures.forms_of(survey.grid)
    if found is None:
        return []
    form, given, base_form, base_given = found
    return [
        {
            "benchmark": name,
            "share_in_form_base": float(base_form[..., b].mean()),
            "share_in_form": float(form[..., b].mean()),
            "share_right_given_form_base": _mean(base_given[..., b]),
            "share_right_given_form": _mean(given[..., b]),
            "share_likeliest_base": likeliest[0] if likeliest else None,
            "share_likeliest": likeliest[1] if likeliest else None,
        }
        for b, name in enumerate(survey.grid.benchmarks)
        for likeliest in (measures.by_likelihood_of(survey.grid, name),)
    ]


PREDICTORS = {"response": "perplexity of responses", "full": "perplexity of whole texts"} | {
    "bits_per_byte": "bits per byte",
    "tokens": "tokens of a response",
}


def perplexities(survey: Survey, measures: Measures) -> list[Row]:
    """Of each model and set its perplexities under the base, and the mean gains (Figure 4a)."""
    grid = survey.grid
    found = {name: measures.perplexity_of(grid, name) for name in PREDICTORS}
    if found["response"] is None:
        return []
    gain = survey.gains[STANDARDISED].mean(axis=2)
    raw = (grid.scores - grid.base[:, None]).mean(axis=2)
    return [
        {
            "model": model,
            "data": data,
            **{name: float(values[m, d]) if values is not None else None for name, values in found.items()},
            "standardised_gain": float(gain[m, d]),
            "gain": float(raw[m, d]),
        }
        for m, model in enumerate(grid.models)
        for d, data in enumerate(grid.sets)
    ]


def predictions(survey: Survey, measures: Measures) -> list[Row]:
    """r over the sets of the logarithm of each predictor with the mean standardised gain (Figures 4a, 4b).

    One row a predictor: the r of each model, their Fisher mean, and its p under permutations of the sets.
    """
    grid, gain = survey.grid, survey.gains[STANDARDISED].mean(axis=2)
    rows: list[Row] = []
    for name in PREDICTORS:
        values = measures.perplexity_of(grid, name)
        if values is None or len(grid.sets) < 3 or not (np.isfinite(values) & (values > 0)).all():
            continue
        logs = np.log(values)
        by_model = r_of_each(logs, gain)
        if np.isnan(by_model).any():
            continue
        rows.append(
            {
                "predictor": name,
                "r": float(fisher_mean(by_model)),
                "lowest": float(by_model.min()),
                "highest": float(by_model.max()),
                "p": mean_r_of_each_p(logs, gain, survey.seed_for("prediction", name)),
                "sets": len(grid.sets),
            }
        )
    return rows


def predictions_by_benchmark(survey: Survey, measures: Measures) -> list[Row]:
    """r over the sets of the logarithm of response perplexity with the gain on each benchmark (Figure 4a).

    The Fisher mean over the models whose gains on the benchmark vary, the lowest and the highest of them, and p under
    permutations of the sets, not corrected.
    """
    grid, values = survey.grid, measures.perplexity_of(survey.grid, "response")
    if values is None or len(grid.sets) < 3 or not (np.isfinite(values) & (values > 0)).all():
        return []
    logs, rows = np.log(values), []
    for b, benchmark in enumerate(grid.benchmarks):
        gain = survey.gains[STANDARDISED][:, :, b]
        by_model = r_of_each(logs, gain)
        known = np.isfinite(by_model)
        if not known.any():
            continue
        rows.append(
            {
                "benchmark": benchmark,
                "r": float(fisher_mean(by_model[known])),
                "lowest": float(by_model[known].min()),
                "highest": float(by_model[known].max()),
                "p": mean_r_of_each_p(logs[known], gain[known], survey.seed_for("prediction", benchmark)),
                "models": int(known.sum()),
            }
        )
    return rows


def layers(survey: Survey, measures: Measures) -> list[Row]:
    """By position in the network: mean relative change, and its r with the mean gain over sets (Figures 5a, 5c).

    r_with_gain: Fisher mean over models; null_low, null_high: 95 % of it when the gains are shuffled over the sets, the
    same way in every model. r_pooled: over all models and sets at once.
    """
    grid = survey.grid
    changes = measures.movement_of(grid.models, grid.sets, grid.condition)
    if not changes or len(grid.sets) < 3:
        return []
    by_set = survey.gains[STANDARDISED].mean(axis=2)  # [models, sets]
    gains = {model: by_set[grid.models.index(model)] for model in changes}
    r = mean_correlation(gain_correlations(changes, gains))
    rng = np.random.default_rng(survey.seed_for("layers"))
    null = np.stack(
        [
            mean_correlation(gain_correlations(changes, {m: gains[m][order] for m in changes}))
            for order in (rng.permutation(len(grid.sets)) for _ in range(NULL_DRAWS))
        ]
    )
    low, high = np.quantile(null, [0.025, 0.975], axis=0)
    amount = np.mean([on_grid(change).mean(axis=0) for change in changes.values()], axis=0)
    all_gains = np.concatenate([gains[model] for model in changes])[None]
    pooled = [r_by_model(at, all_gains)[0] for at in np.concatenate([on_grid(c) for c in changes.values()]).T]
    alike = cross_model(list(changes.values())) if len(changes) > 1 else np.full(POINTS, np.nan)
    return [
        {
            "position": float(position),
            "relative_change": float(amount[n]),
            "r_with_gain": float(r[n]),
            "null_low": float(low[n]),
            "null_high": float(high[n]),
            "r_pooled": float(pooled[n]),
            "r_between_models": float(alike[n]),
        }
        for n, position in enumerate(positions(POINTS))
    ]


def layers_by_model(survey: Survey, measures: Measures) -> list[Row]:
    """Of each model and position the relative change, and its r with the mean gain over sets (Figure 5a)."""
    grid = survey.grid
    changes = measures.movement_of(grid.models, grid.sets, grid.condition)
    if not changes or len(grid.sets) < 3:
        return []
    by_set = survey.gains[STANDARDISED].mean(axis=2)
    r = gain_correlations(changes, {model: by_set[grid.models.index(model)] for model in changes})
    return [
        {
            "model": model,
            "position": float(position),
            "relative_change": float(on_grid(change).mean(axis=0)[n]),
            "r_with_gain": float(r[m, n]),
        }
        for m, (model, change) in enumerate(changes.items())
        for n, position in enumerate(positions(POINTS))
    ]


def _mean(values: Any) -> float | None:
    known = values[np.isfinite(values)]
    return float(known.mean()) if known.size else None
