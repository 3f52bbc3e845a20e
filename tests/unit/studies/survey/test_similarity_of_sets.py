"""Similarity of sets and benchmarks against gains."""

from __future__ import annotations

import numpy as np
import pytest

from sftlab.studies.survey.about import About
from sftlab.studies.survey.score_table import read_scores
from sftlab.studies.survey.similarity import correlation, similarity_cells, similarity_prediction
from sftlab.studies.survey.survey import Survey, open_survey
from tests.support import survey_tables


@pytest.fixture(scope="module")
def survey(tmp_path_factory: pytest.TempPathFactory) -> Survey:
    file = survey_tables.write(
        tmp_path_factory.mktemp("scores") / "scores.csv", survey_tables.rows(models=survey_tables.MODELS[:3])
    )
    return open_survey(read_scores(file), About())


def similarities(survey: Survey, of: dict[str, float]) -> dict[tuple[str, int, str], float | None]:
    size = survey.grid.condition.size
    return {
        (d, size, b): of[d] + 0.01 * n for d in survey.grid.sets for n, b in enumerate(survey.grid.benchmarks)
    }


def test_correlation_is_pearsons_over_all_cells() -> None:
    rng = np.random.default_rng(0)
    one, other = rng.normal(size=(4, 3)), rng.normal(size=(4, 3))
    assert correlation(one, other) == pytest.approx(np.corrcoef(one.ravel(), other.ravel())[0, 1])
    assert np.isnan(correlation(one, np.ones((4, 3))))


def test_similar_sets_that_gain_more_have_a_positive_r(survey: Survey) -> None:
    found = similarities(survey, {"good": 0.9, "neutral": 0.5, "odd": 0.5, "bad": 0.1})
    (row,) = similarity_prediction(survey, found)
    cells = similarity_cells(survey, found)
    pairs = np.array([[cell["similarity"], cell["standardised_gain"]] for cell in cells])
    assert row["r"] == pytest.approx(np.corrcoef(pairs.T)[0, 1]) and row["r"] > 0.6
    assert row["low"] < row["r"] < row["high"] and (row["sets"], row["benchmarks"]) == (4, 6)
    assert 0 < row["p"] < 0.2  # four sets have 24 orders
    assert len(cells) == 24 and cells[0]["data"] == survey.grid.sets[0]


def test_unknown_or_constant_similarity_predicts_nothing(survey: Survey) -> None:
    found = similarities(survey, dict.fromkeys(survey.grid.sets, 0.5))
    size = survey.grid.condition.size
    assert similarity_prediction(survey, {**found, ("good", size, "quiz"): None}) == []
    assert similarity_prediction(survey, dict.fromkeys(found, 0.5)) == []
    assert similarity_cells(survey, {})[0]["similarity"] is None
