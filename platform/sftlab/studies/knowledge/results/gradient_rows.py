"""Rows on gradients of facts, made from measured sums, and rows on which facts are forgotten, from predictions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import isnan

import numpy as np

from sftlab.analysis.gradients import cosines, mean, norms, shares
from sftlab.analysis.separation import area
from sftlab.measurements.fact_gradients import KNOWN, SHUFFLED, TRAINING, UPDATE, Part, Products

PREDICTORS = (UPDATE, TRAINING, SHUFFLED, "loss", "norm")


@dataclass(frozen=True)
class GradientRow:
    """Gradients of facts of one bucket at the base model, in one layer or module, or in all parameters.

    norm: mean L2 norm. cosine: mean cosine with the mean gradient of the well-mastered facts (bucket 4), from which a
    fact of bucket 4 itself is left out; None where it is not defined. The errors are standard errors over the facts.
    """

    bucket: int
    kind: str  # "layer", "module" or "all"
    name: str  # of the layer or module; "all"
    facts: int
    norm: float
    norm_error: float | None
    cosine: float | None
    cosine_error: float | None


@dataclass(frozen=True)
class RestoredGradientRow:
    """Share of the squared gradient of facts of one bucket that falls on the weights that a restoration resets.

    share: mean over the facts; None where their gradients are zero. weights: the share of the weights that is reset,
    which is what a choice at random gives.
    """

    cell: str
    percent: float
    bucket: int
    kind: str
    name: str
    facts: int
    share: float | None
    error: float | None
    weights: float


@dataclass(frozen=True)
class PredictedRow:
    """A well-mastered test fact, and what fine-tuning would do to the cross-entropy of its answer to first order.

    loss, norm: cross-entropy in nats, and L2 norm of its gradient, at the base model. The others are the predicted
    change of the loss in nats: `update` by the true update, `shuffled` by the same with the updates of each tensor
    shuffled, `training` by gradient descent with the gradients of the training set at the base model.
    """

    split: str
    fact_id: str
    loss: float
    norm: float
    update: float
    shuffled: float
    training: float


@dataclass(frozen=True)
class ForgettingRow:
    """How well a score separates forgotten facts, well-mastered ones that the tuned model answers wrong, from others.

    predictor: one of PREDICTORS, the columns of `PredictedRow`. auc: probability that a forgotten fact has the higher
    score; None where all facts are forgotten, or none. low, high: its 95 % interval (DeLong); None where either kind
    has one fact.
    """

    cell: str
    split: str
    predictor: str
    facts: int
    forgotten: int
    auc: float | None
    low: float | None
    high: float | None


def groups_of(parts: Sequence[Part]) -> dict[tuple[str, str], list[int]]:
    """The columns of all parameters, of each layer and of each module, by kind and name."""
    found: dict[tuple[str, str], list[int]] = {("all", "all"): list(range(len(parts)))}
    for kind in ("layer", "module"):
        for column, part in enumerate(parts):
            found.setdefault((kind, getattr(part, kind)), []).append(column)
    return found


def gradient_rows(found: Products, buckets: Sequence[int], known: Sequence[int]) -> list[GradientRow]:
    """The rows of the base model. buckets: of each fact. known: the rows whose mean is the direction KNOWN."""
    rows = []
    for (kind, name), group in groups_of(found.parts).items():
        lengths = norms(found.squared, group)
        angles = cosines(found.squared, found.along[KNOWN], found.sizes[KNOWN], group, known, len(known))
        for bucket in sorted(set(buckets)):
            mine = [row for row, of in enumerate(buckets) if of == bucket]
            norm, cosine = mean(lengths[mine]), mean(angles[mine])
            assert norm is not None
            ends = (None, None) if cosine is None else cosine
            rows.append(GradientRow(bucket, kind, name, len(mine), *norm, *ends))
    return rows


def restored_rows(
    cell: str, percent: float, found: Products, buckets: Mapping[int, int]
) -> list[RestoredGradientRow]:
    """The rows of one tuned model. buckets: by row of those facts that are compared."""
    rows = []
    for (kind, name), group in groups_of(found.parts).items():
        chosen, weights = int(found.chosen[group].sum()), sum(found.parts[at].weights for at in group)
        part = shares(found.within, found.squared, group)
        for bucket in sorted(set(buckets.values())):
            mine = [row for row, of in buckets.items() if of == bucket]
            share, error = mean(part[mine]) or (None, None)
            rows.append(
                RestoredGradientRow(
                    cell, percent, bucket, kind, name, len(mine), share, error, chosen / weights
                )
            )
    return rows


def predicted_rows(found: Products, facts: Mapping[int, tuple[str, str]]) -> list[PredictedRow]:
    """The rows of one tuned model. facts: split and fact id by row."""
    whole = groups_of(found.parts)["all", "all"]
    lengths = norms(found.squared, whole)
    along = {name: sums.sum(axis=1) for name, sums in found.along.items()}
    return [
        PredictedRow(
            split,
            fact,
            float(found.losses[row]),
            float(lengths[row]),
            *(float(along[name][row]) for name in (UPDATE, SHUFFLED, TRAINING)),
        )
        for row, (split, fact) in facts.items()
    ]


def forgetting_rows(
    cell: str, predicted: Sequence[PredictedRow], right: Mapping[str, Mapping[str, bool]]
) -> list[ForgettingRow]:
    """How well each score predicts what is forgotten. right: by split and fact id, whether the answer is right."""
    rows = []
    for split in dict.fromkeys(row.split for row in predicted):
        mine = [row for row in predicted if row.split == split and row.fact_id in right[split]]
        forgotten = np.array([not right[split][row.fact_id] for row in mine], np.bool_)
        for name in PREDICTORS:
            found = area([getattr(row, name) for row in mine], forgotten)
            ends = (
                (None, None, None)
                if found is None
                else (found.value, _number(found.low), _number(found.high))
            )
            rows.append(ForgettingRow(cell, split, name, len(mine), int(forgotten.sum()), *ends))
    return rows


def _number(value: float) -> float | None:
    return None if isnan(value) else value
