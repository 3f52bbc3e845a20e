"""Similarity of sets and benchmarks against gains."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from sftlab.studies.survey.about import About
from sftlab.studies.survey.compare import Comparison, compare
from sftlab.studies.survey.report.similarity_section import similarity
from sftlab.studies.survey.score_table import read_scores
from sftlab.studies.survey.similarity import correlation, similarity_cells, similarity_prediction
from sftlab.studies.survey.survey import Survey
from tests.support import survey_tables


@pytest.fixture(scope="module")
def scores(tmp_path_factory: pytest.TempPathFactory) -> Comparison:
    file = survey_tables.write(
        tmp_path_factory.mktemp("scores") / "scores.csv", survey_tables.rows(models=survey_tables.MODELS[:3])
    )
    return compare(read_scores(file), About())


@pytest.fixture(scope="module")
def survey(scores: Comparison) -> Survey:
    return scores.survey


GRADED = {"good": 0.9, "neutral": 0.5, "odd": 0.5, "bad": 0.1}


def similarities(survey: Survey, of: dict[str, float]) -> dict[tuple[str, int, str], float | None]:
    size = survey.grid.condition.size
    return {
        (d, size, b): of[d] + 0.01 * n for d in survey.grid.sets for n, b in enumerate(survey.grid.benchmarks)
    }


def test_correlation_is_pearsons_over_all_cells() -> None:
    rng = np.random.default_rng(0)
    one, other = rng.normal(size=(2, 4, 3)), rng.normal(size=(4, 3))
    expected = [np.corrcoef(cells.ravel(), other.ravel())[0, 1] for cells in one]
    assert correlation(one, other) == pytest.approx(expected)
    assert np.isnan(correlation(one[0], np.ones((4, 3))))


def test_similar_sets_that_gain_more_have_a_positive_r(survey: Survey) -> None:
    found = similarities(survey, GRADED)
    (row, *by_model) = similarity_prediction(survey, found, {})
    cells = similarity_cells(survey, found, {})
    pairs = np.array([[cell["similarity_words"], cell["standardised_gain"]] for cell in cells])
    assert row["r"] == pytest.approx(np.corrcoef(pairs.T)[0, 1]) and row["r"] > 0.6
    assert row["low"] < row["r"] < row["high"] and (row["sets"], row["benchmarks"]) == (4, 6)
    assert row["null_low"] < 0 < row["null_high"]
    assert 0 < row["p"] < 0.2  # four sets have 24 orders
    assert len(cells) == 24 and cells[0]["data"] == survey.grid.sets[0]
    assert cells[0]["similarity_embeddings"] is None
    assert (row["model"], row["measure"]) == ("mean of all models", "words")
    assert [one["model"] for one in by_model] == list(survey.grid.models)


def test_embeddings_are_of_each_base_and_their_mean_predicts_the_mean_gain(survey: Survey) -> None:
    reverse = {name: 1 - value for name, value in GRADED.items()}
    first, *others = survey.grid.models
    embedded = {model: similarities(survey, GRADED) for model in others} | {
        first: similarities(survey, reverse)
    }
    rows = {
        row["model"]: row
        for row in similarity_prediction(survey, {}, embedded)
        if row["measure"] == "embeddings"
    }
    assert rows[first]["r"] < -0.5 and all(rows[model]["r"] > 0.5 for model in others)
    cells = similarity_cells(survey, {}, embedded)
    assert cells[0]["similarity_embeddings"] == pytest.approx((0.9 + 0.9 + 0.1) / 3)
    assert cells[0]["similarity_words"] is None
    pairs = np.array([[cell["similarity_embeddings"], cell["standardised_gain"]] for cell in cells])
    assert rows["mean of all models"]["r"] == pytest.approx(np.corrcoef(pairs.T)[0, 1])


def test_unknown_or_constant_similarity_predicts_nothing(survey: Survey) -> None:
    found = similarities(survey, dict.fromkeys(survey.grid.sets, 0.5))
    size = survey.grid.condition.size
    assert similarity_prediction(survey, {**found, ("good", size, "quiz"): None}, {}) == []
    assert similarity_prediction(survey, dict.fromkeys(found, 0.5), {}) == []


def test_benchmark_without_questions_is_left_out(survey: Survey) -> None:
    found = {key: value for key, value in similarities(survey, GRADED).items() if key[2] != "quiz"}
    assert {row["benchmarks"] for row in similarity_prediction(survey, found, {})} == {5}


def test_section_has_a_figure_and_a_column_for_each_measure(scores: Comparison) -> None:
    survey = scores.survey
    alike = (
        similarities(survey, GRADED),
        {model: similarities(survey, GRADED) for model in survey.grid.models},
    )
    tables = {
        "similarities": similarity_cells(survey, *alike),
        "similarity": similarity_prediction(survey, *alike),
    }
    section = similarity(replace(scores, tables={**scores.tables, **tables}))
    assert section is not None and len(section.figures) == 2
    assert "vectors of a training set" in section.see and "mean embeddings under the bases" in section.see
    (table,) = section.tables
    assert table.columns == ["words", "shuffled sets", "p", "embeddings", "shuffled sets", "p"]
    assert [row.heading for row in table.rows] == ["mean of all models", *survey.grid.models]
    assert similarity(scores) is None
