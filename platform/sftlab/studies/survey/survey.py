"""A survey to analyse: its table, what is known about its names, its complete grid and the gains on it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from sftlab.analysis import gains as treatments
from sftlab.analysis.statistics import seed_of
from sftlab.studies.survey.about import About
from sftlab.studies.survey.grid import Grid, main_grid
from sftlab.studies.survey.score_table import ScoreTable

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Survey:
    """Everything that the tables, claims and figures are computed from.

    Attributes:
        gains: [models, sets, benchmarks] of the grid, by treatment.
        spread: [benchmarks], the standard deviation of the raw gains: the unit of standardised differences.
    """

    table: ScoreTable
    about: About
    grid: Grid
    gains: Mapping[str, Floats]
    spread: Floats
    seed: int

    @property
    def families(self) -> list[str]:
        return self.about.labels(self.grid.models, "family")

    @property
    def languages(self) -> list[str]:
        return self.about.labels(self.grid.models, "language")

    def sets_at(self, names: Sequence[str]) -> list[int]:
        return [self.grid.sets.index(name) for name in names]

    def benchmarks_at(self, names: Sequence[str]) -> list[int]:
        return [self.grid.benchmarks.index(name) for name in names]

    def seed_for(self, *parts: object) -> int:
        """A seed of what a number is about, so that it does not depend on which others are computed."""
        return seed_of("survey", self.seed, *parts) % 2**32


def open_survey(table: ScoreTable, about: About, seed: int = 0) -> Survey:
    """The grid of a table and the gains on it. Raises UserError as `main_grid`."""
    grid = main_grid(table, about)
    raw = treatments.gains(grid.scores, grid.base)
    return Survey(
        table=table,
        about=about,
        grid=grid,
        gains={name: treatments.treated(name, raw) for name in treatments.TREATMENTS},
        spread=treatments.spread_by_benchmark(raw),
        seed=seed,
    )
