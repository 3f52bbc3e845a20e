"""The best tuned model of each base: chosen on half of the questions of every benchmark, judged on the other half.

The half is a matter of the question's id alone, so that all models are chosen on the same questions. Gains are in
standard deviations of a benchmark's gains over the tuned models of the survey; a benchmark on which all gains are
equal, or that has one question, takes no part.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256

import numpy as np
import numpy.typing as npt

from sftlab.analysis.statistics import RESAMPLES

Floats = npt.NDArray[np.float64]
DEV, TEST = "dev", "test"
HALVES = (DEV, TEST)


@dataclass(frozen=True)
class Scored:
    """Scores in [0, 1] of one model on one benchmark: on all questions, and on each half (None: without a question).

    model: as it is named in a table; of a base, its own name. in_form: share of answers in the asked form.
    """

    base: str
    model: str
    benchmark: str
    score: float
    in_form: float
    dev: float | None
    test: float | None


@dataclass(frozen=True)
class Choice:
    """A base's best tuned model by its mean gain on dev, and how many others have the same."""

    base: str
    model: str
    dev: float
    ties: int


@dataclass(frozen=True)
class Judgement:
    """Mean gain of a chosen model on the questions that took no part in the choice, with its 95 % interval."""

    gain: float
    low: float
    high: float
    questions: int


def dev_questions(ids: Iterable[str]) -> frozenset[str]:
    """The half of the questions that models are chosen on: every second id in the order of their hashes."""
    ordered = sorted(ids, key=lambda name: (sha256(name.encode()).hexdigest(), name))
    return frozenset(ordered[1::2])


def spreads(rows: Sequence[Scored], half: str | None = None) -> dict[str, float]:
    """By benchmark the population standard deviation of the gains of all tuned models.

    Benchmarks without spread are left out. half: dev or test; all questions if unset.
    """
    before = {(row.base, row.benchmark): _on(row, half) for row in rows if row.model == row.base}
    gains: dict[str, list[float]] = {}
    for row in rows:
        score, first = _on(row, half), before.get((row.base, row.benchmark))
        if row.model != row.base and score is not None and first is not None:
            gains.setdefault(row.benchmark, []).append(score - first)
    found = {name: float(np.std(values)) for name, values in gains.items()}
    return {name: value for name, value in found.items() if value > 1e-12}


def choose(rows: Sequence[Scored]) -> list[Choice]:
    """The best tuned model of each base on dev, the first of those that are equal; bases without a gain have none."""
    spread = spreads(rows, DEV)
    before = {(row.base, row.benchmark): row.dev for row in rows if row.model == row.base}
    gains: dict[str, dict[str, list[float]]] = {}
    for row in rows:
        first = before.get((row.base, row.benchmark))
        if row.model == row.base or row.benchmark not in spread or row.dev is None or first is None:
            continue
        own = gains.setdefault(row.base, {}).setdefault(row.model, [])
        own.append((row.dev - first) / spread[row.benchmark])
    found = []
    for base, models in gains.items():
        means = {model: float(np.mean(values)) for model, values in models.items()}
        best = max(means, key=means.__getitem__)
        ties = sum(abs(mean - means[best]) <= 1e-12 for mean in means.values()) - 1
        found.append(Choice(base, best, means[best], ties))
    return found


def judge(
    differences: Mapping[str, Sequence[float]], spread: Mapping[str, float], seed: int
) -> Judgement | None:
    """Mean over the benchmarks of a model's mean gain in standard deviations; the questions of each are resampled.

    differences: by benchmark, of each question of the other half the model's score less that of the base. Benchmarks
    that are not in `spread` take no part; None where none is left.
    """
    cells = [
        np.asarray(values, dtype=np.float64) / spread[name]
        for name, values in differences.items()
        if name in spread and len(values)
    ]
    if not cells:
        return None
    rng = np.random.default_rng(seed)
    draws = np.zeros(RESAMPLES)
    for values in cells:
        draws += values[rng.integers(0, len(values), (RESAMPLES, len(values)))].mean(axis=1)
    low, high = np.quantile(draws / len(cells), [0.025, 0.975])
    gain = float(np.mean([values.mean() for values in cells]))
    return Judgement(gain, float(low), float(high), sum(len(values) for values in cells))


def _on(row: Scored, half: str | None) -> float | None:
    return row.score if half is None else row.dev if half == DEV else row.test
