"""Faults that a table of scores shows by itself: copied rows, scores below chance, totals that are no mean."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
# A pair of rows is reported where so many equal scores would come by accident once in a million tables.
ACCIDENT = 1e-6
FEWEST_EQUAL = 3


@dataclass(frozen=True)
class Copy:
    """Two rows that share more scores than accident explains: the indices of the rows and of the equal columns."""

    first: int
    second: int
    equal: tuple[int, ...]
    compared: int
    p: float


def copied_rows(rows: npt.ArrayLike, background: npt.ArrayLike) -> list[Copy]:
    """Pairs of `rows` with more equal scores than accident explains, the most equal first.

    In a column, two rows are equal by accident as often as two rows of `background` are: scores that are rounded, or
    small, or often 0, agree often. The number of equal columns is compared with the sum of these chances
    (Poisson binomial), corrected for the number of pairs (Bonferroni).

    Args:
        rows: [rows, columns], NaN where missing; such as all baselines.
        background: [rows, columns], all scores of the table.
    """
    values = np.asarray(rows, dtype=np.float64)
    chances = coincidence(background)
    pairs = len(values) * (len(values) - 1) // 2
    found = []
    for first in range(len(values)):
        for second in range(first + 1, len(values)):
            both = np.isfinite(values[first]) & np.isfinite(values[second])
            equal = np.flatnonzero(both & (values[first] == values[second]))
            if equal.size < FEWEST_EQUAL:
                continue
            p = at_least(chances[both], equal.size) * pairs
            if p < ACCIDENT:
                columns = tuple(int(column) for column in equal)
                found.append(Copy(first, second, columns, int(both.sum()), p))
    return sorted(found, key=lambda copy: (-len(copy.equal), copy.first, copy.second))


def coincidence(background: npt.ArrayLike) -> Floats:
    """For each column, the chance that two different rows have the same score, never below 1 in 1,000.

    The floor is for columns in which no two rows agree: that a chance was not seen does not make it 0.
    """
    values = np.asarray(background, dtype=np.float64)
    chances = []
    for column in values.T:
        present = column[np.isfinite(column)]
        _, counts = np.unique(present, return_counts=True)
        pairs = present.size * (present.size - 1)
        chances.append((counts * (counts - 1)).sum() / pairs if pairs else 0.0)
    floored: Floats = np.maximum(np.array(chances), 1e-3)
    return floored


def at_least(chances: npt.ArrayLike, successes: int) -> float:
    """Probability of `successes` or more among independent events with these chances."""
    probabilities = np.array([1.0])
    for chance in np.asarray(chances, dtype=np.float64):
        probabilities = np.convolve(probabilities, [1 - chance, chance])
    # Summed from the small end, so that tiny tails are not lost in 1 - x.
    return float(probabilities[successes:][::-1].sum())


def share_below(scores: npt.ArrayLike, chance: float) -> float:
    """Share of the scores that are below chance; NaN scores are left out, and no score at all gives NaN."""
    values = np.asarray(scores, dtype=np.float64)
    values = values[np.isfinite(values)]
    return float((values < chance).mean()) if values.size else float("nan")


def clearly_below(chance: float, questions: int) -> float:
    """The score, in per cent, that guessing misses in 1 of 1,000 benchmarks: below it, answers are not guesses.

    Args:
        chance: per cent right by guessing.
        questions: their number.
    """
    from scipy.stats import binom

    return float(100 * binom.ppf(0.001, questions, chance / 100) / questions)


def largest_gap_to_mean(total: npt.ArrayLike, parts: npt.ArrayLike) -> float:
    """The largest |total - mean of its parts| over rows where all are present; NaN where none is.

    Args:
        total: [rows].
        parts: [rows, parts].
    """
    gap = np.abs(np.asarray(total, dtype=np.float64) - np.asarray(parts, dtype=np.float64).mean(axis=1))
    gap = gap[np.isfinite(gap)]
    return float(gap.max()) if gap.size else float("nan")
