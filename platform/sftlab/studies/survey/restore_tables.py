"""Tables of restored models: what restoration gains, and whether that is form or knowledge. Rows as dicts.

One half of each benchmark's questions chooses the percentage of a ladder, the other half judges it.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from sftlab.analysis.effects import LEVEL, Effect, mean_effect
from sftlab.analysis.form import gain_parts
from sftlab.studies.survey.champions import DEV, TEST
from sftlab.studies.survey.measures import Measures
from sftlab.studies.survey.survey import Survey

Row = dict[str, Any]
Floats = npt.NDArray[np.float64]
GAIN, FORM, KNOWLEDGE, DIFFERENCE = "gain", "form", "knowledge", "form less knowledge"
CONDITION = ("method", "size", "epoch", "schedule")
NUMBERS = ("in_form", "score_given_form", "right_by_likelihood")


@dataclass(frozen=True)
class Ladders:
    """Ladders of one condition, complete for its models, sets and benchmarks.

    Attributes:
        percents: rising from 0.
        values: by half, [numbers, models, sets, percents, benchmarks] with the numbers of NUMBERS; NaN for none.
    """

    models: tuple[str, ...]
    sets: tuple[str, ...]
    percents: tuple[float, ...]
    benchmarks: tuple[str, ...]
    values: Mapping[str, Floats]

    def scores(self, half: str) -> Floats:
        """Share of answers that are right and in the asked form, mean over benchmarks: [models, sets, percents]."""
        form, given = self.values[half][:2]
        mean: Floats = (form * np.nan_to_num(given)).mean(axis=-1)
        return mean

    def parts(self, at: npt.NDArray[np.int64]) -> tuple[Floats, Floats]:
        """Gains on the test half in points, by form and by knowledge, mean over benchmarks: [models, sets].

        at: [models, sets], the place of the percentage.
        """
        form, given = self.values[TEST][:2]
        picked = [np.take_along_axis(part, at[:, :, None, None], axis=2)[:, :, 0] for part in (form, given)]
        of_form, of_knowledge = gain_parts(picked[0], picked[1], form[:, :, 0], given[:, :, 0])
        return 100 * of_form.mean(axis=-1), 100 * of_knowledge.mean(axis=-1)

    def likeliest(self, at: npt.NDArray[np.int64]) -> Floats | None:
        """Gains on the test half of right likeliest choices in points: [models, sets]; None without choices."""
        right = self.values[TEST][2]
        known = np.isfinite(right).all(axis=(0, 1, 2))
        if not known.any():
            return None
        picked = np.take_along_axis(right, at[:, :, None, None], axis=2)[:, :, 0]
        gain: Floats = 100 * (picked - right[:, :, 0])[..., known].mean(axis=-1)
        return gain


def ladders_of(rows: Sequence[Mapping[str, Any]]) -> Ladders | None:
    """The ladders of the condition with the most of them; models whose ladders lack a set are left out."""
    by_condition: dict[tuple[Any, ...], dict[tuple[str, str], list[Mapping[str, Any]]]] = defaultdict(dict)
    for row in rows:
        found = by_condition[tuple(row[name] for name in CONDITION)]
        found.setdefault((row["model"], row["data"]), []).append(row)
    if not by_condition:
        return None
    cells = max(by_condition.values(), key=len)
    sets = tuple(dict.fromkeys(data for _, data in cells))
    models = tuple(
        model
        for model in dict.fromkeys(model for model, _ in cells)
        if all((model, data) in cells for data in sets)
    )
    if not models:
        return None
    percents = tuple(sorted({float(row["percent"]) for row in rows}))
    benchmarks = tuple(dict.fromkeys(str(row["benchmark"]) for row in rows))
    values: dict[str, Floats] = {
        half: np.full((len(NUMBERS), len(models), len(sets), len(percents), len(benchmarks)), np.nan)
        for half in (DEV, TEST)
    }
    for m, model in enumerate(models):
        for d, data in enumerate(sets):
            for row in cells[model, data]:
                place = (m, d, percents.index(row["percent"]), benchmarks.index(row["benchmark"]))
                for number, name in enumerate(NUMBERS):
                    if row[name] is not None:
                        values[row["half"]][(number, *place)] = row[name]
    kept = [
        b for b in range(len(benchmarks)) if all(np.isfinite(v[0, ..., b]).all() for v in values.values())
    ]
    if not kept:
        return None
    asked = {half: found[..., kept] for half, found in values.items()}
    return Ladders(models, sets, percents, tuple(benchmarks[b] for b in kept), asked)


def restorations(survey: Survey, measures: Measures) -> list[Row]:
    """For each percentage above 0 the gain of restoring on the test half, and its parts, in points."""
    found = ladders_of(measures.restored)
    if found is None:
        return []
    rows = []
    for place, percent in enumerate(found.percents[1:], start=1):
        at = np.full((len(found.models), len(found.sets)), place)
        form, knowledge = found.parts(at)
        row: Row = {"percent": percent, "models": len(found.models), "sets": len(found.sets)}
        kinds = {GAIN: form + knowledge, FORM: form, KNOWLEDGE: knowledge}
        if (likeliest := found.likeliest(at)) is not None:
            kinds["likeliest"] = likeliest
        for name, values in kinds.items():
            effect = effect_of(survey, values, name, percent)
            row |= {
                name: float(values.mean()),
                f"{name}_low": None if effect is None else effect.low,
                f"{name}_high": None if effect is None else effect.high,
                f"{name}_p": None if effect is None else effect.p,
            }
        rows.append(row)
    return rows


def chosen_restorations(measures: Measures) -> list[Row]:
    """For each ladder the percentage that is best on the dev half, and what it gains there and on the test half."""
    found = ladders_of(measures.restored)
    if found is None:
        return []
    dev = found.scores(DEV)
    at = chosen(dev)
    form, knowledge = found.parts(at)
    return [
        {
            "model": model,
            "data": data,
            "percent": found.percents[at[m, d]],
            "gain_dev": float(100 * (dev[m, d, at[m, d]] - dev[m, d, 0])),
            GAIN: float(form[m, d] + knowledge[m, d]),
            FORM: float(form[m, d]),
            KNOWLEDGE: float(knowledge[m, d]),
        }
        for m, model in enumerate(found.models)
        for d, data in enumerate(found.sets)
    ]


def repaired(survey: Survey, measures: Measures) -> list[Row]:
    """The gain of the chosen percentages on the test half, its parts, and the difference of the parts, in points.

    Without two models or two sets there is no interval, and no row.
    """
    found = ladders_of(measures.restored)
    if found is None:
        return []
    form, knowledge = found.parts(chosen(found.scores(DEV)))
    rows = []
    kinds = {GAIN: form + knowledge, FORM: form, KNOWLEDGE: knowledge, DIFFERENCE: form - knowledge}
    for name, values in kinds.items():
        effect = effect_of(survey, values, name, "chosen")
        if effect is None:
            return []
        rows.append(
            {
                "part": name,
                "points": effect.value,
                "low": effect.low,
                "high": effect.high,
                "p": effect.p,
                "detectable": effect.detectable or None,  # values without any spread allow no statement
                "clusters": effect.clusters,
                "interval": effect.interval_over,
                "test": effect.p_by,
            }
        )
    return rows


def effect_of(survey: Survey, values: Floats, *about: object) -> Effect | None:
    """The mean over models and sets [models, sets] with its interval; None with one model and one set."""
    seed = survey.seed_for("restoration", *about)
    models, sets = values.shape
    if models > 1 and sets > 1:
        return mean_effect(values, ("models", "training sets"), seed)
    if models > 1:
        return mean_effect(values[:, 0], ("models",), seed)
    return mean_effect(values[0], ("training sets",), seed) if sets > 1 else None


def chosen(dev_scores: Floats) -> npt.NDArray[np.int64]:
    """The place of the best value along the last axis, the first of equal ones (up to rounding)."""
    best = dev_scores.max(axis=-1, keepdims=True)
    places: npt.NDArray[np.int64] = np.argmax(dev_scores >= best - 1e-12, axis=-1)
    return places


def answer(rows: Sequence[Mapping[str, Any]]) -> str:
    """What restoration repairs, from the rows of `repaired`: form, knowledge, both, nothing, harm, or open.

    A number counts as positive or negative where its interval does not contain 0 and its p is below 0.05. open: there
    is a gain, and neither part is shown to be larger; both: the same, with both parts positive.
    """
    sign = {row["part"]: _sign(row) for row in rows}
    if sign[GAIN] <= 0:
        return "harm" if sign[GAIN] < 0 else "nothing"
    if sign[DIFFERENCE]:
        return FORM if sign[DIFFERENCE] > 0 else KNOWLEDGE
    return "both" if sign[FORM] > 0 and sign[KNOWLEDGE] > 0 else "open"


def _sign(row: Mapping[str, Any]) -> int:
    if row["p"] >= LEVEL:
        return 0
    return 1 if row["low"] > 0 else -1 if row["high"] < 0 else 0
