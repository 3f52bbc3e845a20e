"""How each kind of claim is measured, once for every treatment of the gains that it is defined for."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial

import numpy as np

from sftlab.analysis import agreement, components, effects, factors, predictors, transfer
from sftlab.analysis.effects import Effect
from sftlab.analysis.gains import BASELINE_FREE, DOUBLE_CENTRED, RAW, STANDARDISED, TREATMENTS, treated
from sftlab.analysis.variance import synergy
from sftlab.errors import UserError
from sftlab.studies.survey.claims import (
    Claim,
    ComponentsClaim,
    EpochsClaim,
    LabelsClaim,
    MethodClaim,
    SetsClaim,
    TransferClaim,
)
from sftlab.studies.survey.factor_tables import arms_of, single_set_epochs
from sftlab.studies.survey.survey import Floats, Survey
from sftlab.studies.survey.tables import set_lengths, transfer_benchmarks

RESAMPLES = 500
LEVELS = (RAW, STANDARDISED, BASELINE_FREE)


class NotDefined(Exception):
    """Why a claim cannot be tested on this table."""


@dataclass(frozen=True)
class Measured:
    """Effects by treatment, their unit, and p of the published test by treatment where there is one."""

    unit: str
    effects: Mapping[str, Effect]
    published_p: Mapping[str, float] = field(default_factory=dict)


def measure(survey: Survey, claim: Claim) -> Measured:
    """The effects of a claim. Raises NotDefined where the table does not decide it."""
    try:
        return _MEASURES[claim.test.kind](survey, claim)
    except UserError as error:
        raise NotDefined(str(error)) from error


def _sets(survey: Survey, claim: Claim) -> Measured:
    test = claim.test
    assert isinstance(test, SetsClaim)
    _present("training set", [*test.data, *test.versus], survey.grid.sets)
    at = _benchmarks(survey, test.benchmarks, test.besides)
    some = 2 * len(at) <= len(survey.grid.benchmarks)
    names = (RAW, STANDARDISED) if test.versus else (*LEVELS, *([DOUBLE_CENTRED] if some else []))
    found = {}
    for name in names:
        cells = survey.gains[name][:, :, at]
        values = cells if test.measure == "gain" else (cells > 0).astype(np.float64)
        by_model = values[:, survey.sets_at(test.data)].mean(axis=(1, 2))
        if test.versus:
            by_model = by_model - values[:, survey.sets_at(test.versus)].mean(axis=(1, 2))
        found[name] = effects.mean_effect(by_model, ("models",), survey.seed_for(claim.id, name))
    return Measured("gain" if test.measure == "gain" else "share of cells", found)


def _labels(survey: Survey, claim: Claim) -> Measured:
    test = claim.test
    assert isinstance(test, LabelsClaim)
    labels = survey.about.labels(survey.grid.models, test.label)
    block = survey.about.labels(survey.grid.models, test.across) if test.across else None
    if not np.isfinite(agreement.label_contrast(np.zeros((len(labels),) * 2), labels, block)):
        raise NotDefined(f"no two models share a {test.label}, or all do; name them (--about)")
    found = {}
    for name in TREATMENTS:
        matrix = agreement.model_correlations(survey.gains[name])
        seed = survey.seed_for(claim.id, name)

        draws = _label_draws(survey, name, labels, block, seed)
        _, p = agreement.label_contrast_null(matrix, labels, seed, block)
        value = agreement.label_contrast(matrix, labels, block)
        words = (
            "cluster bootstrap over models and data sets",
            f"{effects.PERMUTATIONS:,} permutations of the {test.label} over the models",
        )
        found[name] = effects.resampled_effect(value, draws, p, len(labels), words)
    return Measured("r", found)


def _label_draws(
    survey: Survey, name: str, labels: Sequence[str], block: Sequence[str] | None, seed: int
) -> Floats:
    """Label contrasts of samples with replacement of the sets and of the models.

    A sample without a pair is left out.
    """
    weights = iter(effects.cluster_weights(len(labels), np.random.default_rng(seed), RESAMPLES))

    def contrast(raw: Floats) -> float:
        matrix = agreement.model_correlations(treated(name, raw))
        return agreement.weighted_label_contrast(matrix, labels, next(weights), block)

    return effects.bootstrap_sets(contrast, survey.gains[RAW], 1, seed + 1, RESAMPLES)


def _components(survey: Survey, claim: Claim) -> Measured:
    test = claim.test
    assert isinstance(test, ComponentsClaim)
    k = min(test.components, len(survey.grid.models) - 1)
    found = {}
    for name in TREATMENTS:
        null = components.explained_null(
            survey.gains[name], survey.seed_for(claim.id, name), effects.PERMUTATIONS // 5
        )[:, k - 1]
        value = float(components.explained(survey.gains[name])[k - 1])
        raw = survey.gains[RAW]
        without = [
            components.explained(treated(name, np.delete(raw, d, axis=1)))[k - 1] - null.mean()
            for d in range(raw.shape[1])
        ]
        found[name] = effects.jackknife_effect(
            without,
            value - float(null.mean()),
            effects.permutation_p(null, value),
            "data sets",
            f"{null.size:,} shufflings of the sets within model and benchmark",
        )
    return Measured("share of variance", found)


def _structure(survey: Survey, claim: Claim) -> Measured:
    found, published = {}, {}
    models = len(survey.grid.models)
    if models < 3:
        raise NotDefined("agreement of structures needs three models")
    for name in TREATMENTS:
        cells = survey.gains[name]
        matrix = agreement.structure_differences(cells)
        weights = effects.cluster_weights(models, np.random.default_rng(survey.seed_for(claim.id, name)))
        draws = agreement.mean_over_pairs(matrix, weights)
        value = float(agreement.mean_over_pairs(matrix, np.ones(models)))
        without = [agreement.mean_over_pairs(matrix, np.arange(models) != m) for m in range(models)]
        words = ("cluster bootstrap over models", "t-test by jackknife over models")
        p = effects.jackknife_p(without, value)
        found[name] = effects.resampled_effect(value, draws[np.isfinite(draws)], p, models, words)
        published[name] = agreement.paired_t(
            agreement.structure_agreement(agreement.benchmark_correlations(cells)),
            agreement.structure_agreement(agreement.set_correlations(cells)),
        ).p
    return Measured("r", found, published)


def _synergy(survey: Survey, claim: Claim) -> Measured:
    found = {}
    for name in LEVELS:
        cells = survey.gains[name]
        rng = np.random.default_rng(survey.seed_for(claim.id, name))
        null = np.array([synergy(_sets_permuted(cells, rng)) for _ in range(effects.PERMUTATIONS // 5)])
        centre = float(null.mean())
        value = synergy(cells)
        draws = effects.bootstrap_sets(
            partial(_synergy_over, name, centre),
            survey.gains[RAW],
            1,
            survey.seed_for(claim.id, name, "interval"),
            RESAMPLES,
        )
        words = (
            "cluster bootstrap over data sets",
            f"{null.size:,} permutations of the sets, alone for each model",
        )
        p = effects.permutation_p(null, value)
        found[name] = effects.resampled_effect(value - centre, draws, p, len(survey.grid.sets), words)
    return Measured("share of variance", found)


def _synergy_over(name: str, centre: float, raw: Floats) -> float:
    return synergy(treated(name, raw)) - centre


def _sets_permuted(cells: Floats, rng: np.random.Generator) -> Floats:
    """The sets in a random order for each model, the same for all benchmarks."""
    orders = rng.random(cells.shape[:2]).argsort(axis=1)
    return np.take_along_axis(cells, orders[:, :, None], axis=1)


def _length(survey: Survey, claim: Claim) -> Measured:
    known = set_lengths(survey)
    if known is None:
        raise NotDefined(
            "the length of the training sets is not known; give it (--about, or `about` of a survey)"
        )
    found = {}
    for name in LEVELS:
        cells = survey.gains[name].mean(axis=2)
        seed = survey.seed_for(claim.id, name)
        both = np.concatenate([known[None], cells])
        draws = effects.bootstrap_sets(
            lambda drawn: predictors.mean_r(drawn[0], drawn[1:]) if np.ptp(drawn[0]) else np.nan,
            both,
            1,
            seed,
            RESAMPLES,
        )
        words = (
            "cluster bootstrap over data sets",
            f"{effects.PERMUTATIONS:,} permutations of the lengths over the sets",
        )
        value, p = predictors.mean_r(known, cells), predictors.mean_r_p(known, cells, seed)
        found[name] = effects.resampled_effect(value, draws, p, len(survey.grid.sets), words)
    return Measured("r", found)


def _method(survey: Survey, claim: Claim) -> Measured:
    test = claim.test
    assert isinstance(test, MethodClaim)
    wanted = {test.first, test.second}
    arms = next((one for one in arms_of(survey, "method") if set(one.names) == wanted), None)
    if arms is None or len(arms.models) < 2:
        raise NotDefined(f"{test.first} and {test.second} were not both used on two models")
    names = test.benchmarks or arms.benchmarks
    _present("benchmark", names, arms.benchmarks)
    at = [arms.benchmarks.index(name) for name in names]
    sign = 1 if arms.names[0] == test.first else -1
    raw = sign * (arms.first - arms.second)[:, :, -1][:, :, at]
    return Measured("gain", _differences(survey, claim, raw, survey.benchmarks_at(names), flip=0))


def _size(survey: Survey, claim: Claim) -> Measured:
    found = arms_of(survey, "size")
    if not found or len(found[-1].sets) < 2:
        raise NotDefined("no two sizes were used on two training sets")
    arms = found[-1]
    change = (arms.first - arms.second).mean(axis=2)
    measured = _differences(survey, claim, change, survey.benchmarks_at(arms.benchmarks), flip=1)
    # A margin is in standard deviations; raw scores have no common unit.
    return Measured("gain", {STANDARDISED: measured[STANDARDISED]} if claim.margin else measured)


def _differences(
    survey: Survey, claim: Claim, change: Floats, at: Sequence[int], flip: int
) -> dict[str, Effect]:
    """Effects of differences of scores [models, sets, benchmarks], which hold no baseline, raw and standardised."""
    spread = survey.spread[list(at)]
    return {
        name: effects.mean_effect(
            (change / unit).mean(axis=2), ("models", "data sets"), survey.seed_for(claim.id, name), flip
        )
        for name, unit in ((RAW, np.ones_like(spread)), (STANDARDISED, spread))
    }


def _epochs(survey: Survey, claim: Claim) -> Measured:
    test = claim.test
    assert isinstance(test, EpochsClaim)
    found = [grid for grid in single_set_epochs(survey) if len(grid.sets) > 1]
    if not found:
        raise NotDefined("no models were scored at three epochs on two training sets")
    grid = found[0]
    spread = survey.spread[survey.benchmarks_at(grid.benchmarks)]
    values = (
        factors.epoch_steps(grid.scores, spread)
        if test.measure == "steps"
        else factors.distance_between_sets(grid.scores, spread)
    )
    slowed = factors.slowing(values)
    effect = effects.mean_effect(slowed, ("models", "data sets"), survey.seed_for(claim.id), flip=1)
    return Measured("standard deviations", {STANDARDISED: effect})


def _transfer(survey: Survey, claim: Claim) -> Measured:
    test = claim.test
    assert isinstance(test, TransferClaim)
    at = survey.benchmarks_at(list(transfer_benchmarks(survey)))
    if len(at) < 2:
        raise NotDefined(
            "no two benchmarks ask the same questions in two languages; name them (--about, or `about` of a survey)"
        )
    statistic, test_p, how = {
        "weakest": (
            transfer.weakest,
            transfer.weakest_p,
            f"{effects.PERMUTATIONS:,} permutations of the sets of one benchmark, largest p of all pairs",
        ),
        "mean": (
            transfer.mean_correlation,
            transfer.mean_correlation_p,
            "999 permutations of the sets of each benchmark",
        ),
    }[test.measure]
    groups, raw = survey.languages, survey.gains[RAW]
    found = {}
    for name in TREATMENTS:
        seed = survey.seed_for(claim.id, name)
        draws = effects.bootstrap_sets(
            partial(_of_treated, statistic, name, at, groups), raw, 1, seed, RESAMPLES
        )
        cells = survey.gains[name][..., at]
        value, p = statistic(cells, groups), test_p(cells, groups, seed)
        words = ("cluster bootstrap over data sets", how)
        found[name] = effects.resampled_effect(value, draws, p, len(survey.grid.sets), words)
    return Measured("r", found)


def _of_treated(
    statistic: Callable[[Floats, Sequence[str]], float],
    name: str,
    at: Sequence[int],
    groups: Sequence[str],
    raw: Floats,
) -> float:
    return statistic(treated(name, raw)[..., list(at)], groups)


def _benchmarks(survey: Survey, names: Sequence[str], besides: Sequence[str] = ()) -> list[int]:
    wanted = [name for name in names or survey.grid.benchmarks if name not in besides]
    _present("benchmark", [*wanted, *besides], survey.grid.benchmarks)
    return survey.benchmarks_at(wanted)


def _present(kind: str, names: Sequence[str], known: Sequence[str]) -> None:
    missing = [name for name in names if name not in known]
    if missing:
        raise NotDefined(f"the grid has no {kind} {missing[0]}")


_MEASURES: Mapping[str, Callable[[Survey, Claim], Measured]] = {
    "sets": _sets,
    "labels": _labels,
    "components": _components,
    "structure": _structure,
    "synergy": _synergy,
    "length": _length,
    "method": _method,
    "size": _size,
    "epochs": _epochs,
    "transfer": _transfer,
}
