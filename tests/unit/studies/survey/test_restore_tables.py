"""Tables of restored models, by hand."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from sftlab.studies.survey.about import About
from sftlab.studies.survey.measures import Measures
from sftlab.studies.survey.restore_tables import (
    DIFFERENCE,
    FORM,
    GAIN,
    KNOWLEDGE,
    answer,
    chosen_restorations,
    ladders_of,
    repaired,
    restorations,
)
from sftlab.studies.survey.score_table import read_scores
from sftlab.studies.survey.survey import Survey, open_survey
from tests.support import survey_tables

Row = dict[str, Any]
MODELS = [f"m{n}" for n in range(6)]


def row(model: str, percent: float, half: str, form: float, given: float | None, **changes: Any) -> Row:
    found = {
        "model": model,
        "data": "good",
        "method": "full",
        "size": 10,
        "epoch": 1.0,
        "schedule": "cosine",
        "percent": percent,
        "benchmark": "quiz",
        "half": half,
        "questions": 10,
        "in_form": form,
        "score_given_form": given,
        "right_by_likelihood": None,
        "errors": 0,
    }
    return found | changes


def ladder(
    model: str, dev: Mapping[float, float], test: Mapping[float, tuple[float, float]], **changes: Any
) -> list[Row]:
    """Scores of the choosing half with form 1; form and score given form of the judging half."""
    rows = [row(model, percent, "dev", 1.0, value, **changes) for percent, value in dev.items()]
    return rows + [row(model, percent, "test", *pair, **changes) for percent, pair in test.items()]


@pytest.fixture(scope="module")
def survey(tmp_path_factory: pytest.TempPathFactory) -> Survey:
    file = survey_tables.write(tmp_path_factory.mktemp("s") / "scores.csv", survey_tables.rows())
    return open_survey(read_scores(file), About())


def test_dev_half_chooses_and_test_half_judges() -> None:
    rows = ladder("m0", {0: 0.2, 5: 0.5, 20: 0.4}, {0: (0.5, 0.4), 5: (0.9, 0.5), 20: (1.0, 1.0)})
    (found,) = chosen_restorations(Measures(restored=rows))
    assert (found["percent"], found["gain_dev"]) == (5.0, pytest.approx(30))
    assert found[FORM] == pytest.approx(100 * (0.9 - 0.5) * (0.4 + 0.5) / 2)
    assert found[KNOWLEDGE] == pytest.approx(100 * (0.5 - 0.4) * (0.5 + 0.9) / 2)
    assert found[GAIN] == pytest.approx(100 * (0.9 * 0.5 - 0.5 * 0.4))


def test_ladder_that_is_best_unrestored_gains_nothing() -> None:
    rows = ladder("m0", {0: 0.5, 5: 0.5}, {0: (0.5, 0.4), 5: (0.9, 0.9)})
    (found,) = chosen_restorations(Measures(restored=rows))
    assert (found["percent"], found[GAIN], found[FORM]) == (0.0, 0.0, 0.0)


def test_gains_by_percentage_are_means_over_ladders(survey: Survey) -> None:
    rows = [
        *ladder("m0", {0: 0.0, 5: 0.0}, {0: (1.0, 0.2), 5: (1.0, 0.4)}),
        *ladder("m1", {0: 0.0, 5: 0.0}, {0: (0.5, 1.0), 5: (0.7, 1.0)}),
    ]
    (found,) = restorations(survey, Measures(restored=rows))
    assert (found["percent"], found["models"], found["sets"]) == (5.0, 2, 1)
    assert (found[FORM], found[KNOWLEDGE]) == (pytest.approx(10), pytest.approx(10))
    assert found[f"{GAIN}_low"] == pytest.approx(20) == found[f"{GAIN}_high"]
    assert "likeliest" not in found


def test_likeliest_choices_are_compared_where_there_are_choices(survey: Survey) -> None:
    rows = [
        row(model, percent, half, 1.0, 0.5, right_by_likelihood=0.25 + percent / 100)
        for model in ("m0", "m1")
        for percent in (0.0, 5.0)
        for half in ("dev", "test")
    ]
    rows += [{**one, "benchmark": "open", "right_by_likelihood": None} for one in rows]
    (found,) = restorations(survey, Measures(restored=rows))
    assert found["likeliest"] == pytest.approx(5)


def test_only_complete_grids_of_the_largest_condition_are_compared() -> None:
    full = [
        line
        for model in ("m0", "m1")
        for data in ("good", "bad")
        for line in ladder(model, {0: 0.1, 5: 0.2}, {0: (1, 1), 5: (1, 1)}, data=data)
    ]
    lacking = ladder("m2", {0: 0.1, 5: 0.2}, {0: (1, 1), 5: (1, 1)})
    other = ladder("m0", {0: 0.1, 5: 0.2}, {0: (1, 1), 5: (1, 1)}, method="lora")
    found = ladders_of([*lacking, *full, *other])
    assert found is not None
    assert (found.models, set(found.sets), found.percents) == (("m0", "m1"), {"good", "bad"}, (0.0, 5.0))


def test_one_model_and_set_has_no_interval(survey: Survey) -> None:
    rows = ladder("m0", {0: 0.2, 5: 0.5}, {0: (0.5, 0.4), 5: (0.9, 0.5)})
    assert repaired(survey, Measures(restored=rows)) == []
    (found,) = restorations(survey, Measures(restored=rows))
    assert found[f"{GAIN}_low"] is None


@pytest.mark.parametrize(
    ("tuned", "restored", "said"),
    [
        ((0.5, 0.6), (0.8, 0.6), FORM),
        ((0.9, 0.2), (0.9, 0.5), KNOWLEDGE),
        ((0.9, 0.5), (0.9, 0.5), "nothing"),
        ((0.9, 0.5), (0.9, 0.3), "harm"),
    ],
)
def test_planted_repair_is_found_with_its_interval(
    survey: Survey, tuned: tuple[float, float], restored: tuple[float, float], said: str
) -> None:
    rows = [
        line
        for n, model in enumerate(MODELS)
        for line in ladder(
            model,
            {0: 0.2, 5: 0.5},
            {0: tuned, 5: (restored[0], restored[1] + 0.002 * n * (restored != tuned))},
        )
    ]
    found = repaired(survey, Measures(restored=rows))
    assert [line["part"] for line in found] == [GAIN, FORM, KNOWLEDGE, DIFFERENCE]
    assert answer(found) == said
    gain, form, knowledge, difference = (line["points"] for line in found)
    assert gain == pytest.approx(form + knowledge)
    assert difference == pytest.approx(form - knowledge)


def test_three_models_do_not_decide(survey: Survey) -> None:
    rows = [
        line
        for model in MODELS[:3]
        for line in ladder(model, {0: 0.2, 5: 0.5}, {0: (0.5, 0.6), 5: (0.9, 0.6)})
    ]
    found = repaired(survey, Measures(restored=rows))
    assert found[0]["low"] > 0
    assert answer(found) == "nothing"  # the smallest p of three models is 0.25


def test_table_without_ladders_has_no_rows(survey: Survey) -> None:
    assert restorations(survey, Measures()) == [] == chosen_restorations(Measures())
