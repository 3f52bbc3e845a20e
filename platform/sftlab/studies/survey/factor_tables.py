"""Tables of the other factors of fine-tuning: method, size, epochs, mixtures, leave-one-out, few-shot forms."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import replace
from typing import Any

import numpy as np

from sftlab.analysis import factors
from sftlab.analysis.agreement import correlations
from sftlab.analysis.gains import gains as plain_gains
from sftlab.studies.survey.about import shots
from sftlab.studies.survey.grid import (
    Arms,
    Trajectories,
    complete,
    condition_of,
    cube,
    epoch_grids,
    method_arms,
    size_arms,
)
from sftlab.studies.survey.score_table import BASE, Run
from sftlab.studies.survey.survey import Floats, Survey

Row = dict[str, Any]


def methods(survey: Survey) -> list[Row]:
    """The main method against each other one by benchmark, over the models (section 4.4)."""
    rows = []
    for arms in method_arms(survey.table, survey.grid):
        found = factors.arms_by_benchmark(arms.first[:, :, -1], arms.second[:, :, -1])
        rows += [
            {
                "first": arms.names[0],
                "second": arms.names[1],
                "benchmark": benchmark,
                "difference": one.difference,
                "standardised": one.difference / survey.spread[survey.benchmarks_at([benchmark])[0]],
                "p_over_models": one.p,
                "first_better": one.first_better,
                "models": one.models,
            }
            for benchmark, one in zip(arms.benchmarks, found, strict=True)
        ]
    return rows


def method_gains(survey: Survey) -> list[Row]:
    """For each model, r between the gains of two methods, and the mean size of their standardised gains."""
    rows: list[Row] = []
    for arms in method_arms(survey.table, survey.grid):
        base, spread = _base(survey, arms.models, arms.benchmarks), _spread(survey, arms.benchmarks)
        first, second = (plain_gains(scores[:, :, -1], base) / spread for scores in (arms.first, arms.second))
        for m, model in enumerate(arms.models):
            raw = np.stack([first[m] * spread, second[m] * spread]).reshape(2, -1)
            rows.append(
                {
                    "first": arms.names[0],
                    "second": arms.names[1],
                    "model": model,
                    "r": correlations(raw)[0, 1],
                    "size_first": np.abs(first[m]).mean(),
                    "size_second": np.abs(second[m]).mean(),
                }
            )
    return rows


def sizes(survey: Survey) -> list[Row]:
    """The larger against the smaller size by epoch: mean standardised difference, and share of cells better."""
    rows = []
    for arms in size_arms(survey.table, survey.grid):
        change = (arms.first - arms.second) / _spread(survey, arms.benchmarks)
        for e, epoch in enumerate(arms.epochs):
            rows.append(
                {
                    "first": arms.names[0],
                    "second": arms.names[1],
                    "epoch": epoch,
                    "models": len(arms.models),
                    "sets": len(arms.sets),
                    "difference": change[:, :, e].mean(),
                    "share_better": factors.share_better(arms.first[:, :, e], arms.second[:, :, e]),
                }
            )
    return rows


def single_set_epochs(survey: Survey) -> list[Trajectories]:
    """Complete trajectories on single sets, largest first."""
    found = epoch_grids(survey.table, survey.grid, survey.grid.sets)
    return sorted(found, key=lambda grid: (-grid.scores.size, grid.condition))


def mixture_epochs(survey: Survey) -> list[Trajectories]:
    """Complete trajectories on the mixture of all sets."""
    return epoch_grids(survey.table, survey.grid, [survey.about.mixture])


def epochs(survey: Survey) -> list[Row]:
    """By epoch: mean step to the next one, distance of a set to the mean of all, and mean standardised gain."""
    rows = []
    for grid in [*single_set_epochs(survey), *mixture_epochs(survey)]:
        spread = _spread(survey, grid.benchmarks)
        steps = factors.epoch_steps(grid.scores, spread).mean(axis=(0, 1))
        distances = factors.distance_between_sets(grid.scores, spread).mean(axis=(0, 1))
        base = _base(survey, grid.models, grid.benchmarks)
        gain = ((grid.scores - base[:, None, None]) / spread).mean(axis=(0, 1, 3))
        rows += [
            {
                "condition": str(grid.condition),
                "sets": ", ".join(grid.sets) if len(grid.sets) == 1 else f"{len(grid.sets)} sets",
                "models": len(grid.models),
                "epoch": epoch,
                "step_to_next": steps[e] if e < steps.size else None,
                "distance_to_mean": distances[e] if len(grid.sets) > 1 else None,
                "gain": gain[e],
            }
            for e, epoch in enumerate(grid.epochs)
        ]
    return rows


def best_epochs(survey: Survey) -> list[Row]:
    """For each model, the epoch with the largest mean standardised gain after training on the mixture."""
    rows = []
    for grid in mixture_epochs(survey):
        spread, base = _spread(survey, grid.benchmarks), _base(survey, grid.models, grid.benchmarks)
        by_epoch = ((grid.scores[:, 0] - base[:, None]) / spread).mean(axis=2)
        rows += [
            {
                "condition": str(grid.condition),
                "model": model,
                "best_epoch": grid.epochs[int(values.argmax())],
                "gain_at_best": values.max(),
                "gain_at_last": values[-1],
            }
            for model, values in zip(grid.models, by_epoch, strict=True)
        ]
    return rows


def mixtures(survey: Survey) -> list[Row]:
    """For each model, the mixture's mean standardised gain and its rank among the single sets."""
    grid, rows = survey.grid, []
    for m, model in enumerate(grid.models):
        run = _mixture_run(survey, model, survey.about.mixture)
        if run is None:
            continue
        scores = cube(survey.table, [[run]], grid.benchmarks)[0, 0]
        if not np.isfinite(scores).all():
            continue
        mixture = float(((scores - grid.base[m]) / survey.spread).mean())
        single = ((grid.scores[m] - grid.base[m]) / survey.spread).mean(axis=1)
        rows.append(
            {
                "model": model,
                "mixture": mixture,
                "best_single": grid.sets[int(single.argmax())],
                "best": single.max(),
                "mean_single": single.mean(),
                "rank": factors.rank_of_mixture(mixture, single),
                "of": single.size + 1,
            }
        )
    return rows


def leave_one_out(survey: Survey) -> list[Row]:
    """What each set brings to the mixture: mean over benchmarks of all sets less all but it, in standard deviations."""
    rows = []
    about, grid = survey.about, survey.grid
    for model in grid.models:
        for method in sorted({run.method for run in survey.table.runs if run.model == model and run.method}):
            mixture = _mixture_run(survey, model, about.mixture, method)
            without = {data: _mixture_run(survey, model, about.without + data, method) for data in grid.sets}
            if mixture is None or None in without.values():
                continue
            runs = [run for run in without.values() if run is not None]
            scores = cube(survey.table, [[mixture, *runs]], grid.benchmarks)[0]
            if not np.isfinite(scores).all():
                continue
            found = factors.contributions(scores[0], scores[1:], survey.spread)
            rows += [
                {"model": model, "method": method, "data": data, "contribution": value}
                for data, value in zip(without, found, strict=True)
            ]
    return rows


def shot_gains(survey: Survey) -> list[Row]:
    """The same benchmark with and without examples in its prompt: mean gain of each form, and r of the gains.

    On the models and sets of the grid for which all scores are there.
    """
    forms: dict[str, dict[int, str]] = defaultdict(dict)
    for name in survey.table.benchmarks:
        stem, count = shots(name)
        forms[stem.casefold()][count] = name
    rows = []
    for by_count in forms.values():
        if 0 not in by_count or len(by_count) < 2:
            continue
        for count in sorted(by_count.keys() - {0}):
            found = _both_forms(survey, by_count[0], by_count[count])
            if found is not None:
                rows.append({"zero_shot": by_count[0], "few_shot": by_count[count], "shots": count, **found})
    return rows


def _both_forms(survey: Survey, zero: str, few: str) -> Row | None:
    grid, names = survey.grid, [zero, few]
    tuned = cube(survey.table, [[grid.condition.run(m, d) for d in grid.sets] for m in grid.models], names)
    base = cube(survey.table, [[Run(m, BASE)] for m in grid.models], names)[:, 0]
    kept, _ = complete(tuned - base[:, None])
    if len(kept[2]) < 2 or not kept[0] or not kept[1]:
        return None
    gain = (tuned - base[:, None])[np.ix_(*kept)]
    means = gain.mean(axis=(0, 1))
    return {
        "models": len(kept[0]),
        "sets": len(kept[1]),
        "gain_zero_shot": means[0],
        "gain_few_shot": means[1],
        "sign_changes": bool(means[0] * means[1] < 0),
        "r": correlations(gain.reshape(-1, 2).T)[0, 1],
        "base_zero_shot": base[kept[0], 0].mean(),
        "base_few_shot": base[kept[0], 1].mean(),
    }


def _mixture_run(survey: Survey, model: str, data: str, method: str | None = None) -> Run | None:
    """The model's run on a mixture by the main schedule at the main epoch; of several sizes the largest."""
    wanted = replace(survey.grid.condition, method=method or survey.grid.condition.method)
    found = [
        run
        for run in survey.table.runs
        if (run.model, run.data) == (model, data) and replace(condition_of(run), size=wanted.size) == wanted
    ]
    return max(found, key=lambda run: run.size, default=None)


def _base(survey: Survey, models: tuple[str, ...], benchmarks: tuple[str, ...]) -> Floats:
    scores: Floats = cube(survey.table, [[Run(model, BASE) for model in models]], benchmarks)[0]
    return scores


def _spread(survey: Survey, benchmarks: tuple[str, ...]) -> Floats:
    spread: Floats = survey.spread[survey.benchmarks_at(benchmarks)]
    return spread


def arms_of(survey: Survey, kind: str) -> list[Arms]:
    """Pairs of conditions of a kind, "method" or "size"."""
    return {"method": method_arms, "size": size_arms}[kind](survey.table, survey.grid)
