"""Judgments from elsewhere on the models of a survey."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from sftlab.errors import UserError
from sftlab.studies.survey.judged import read_judged
from sftlab.studies.survey.plan import SurveyPlan
from sftlab.studies.survey.sources import SurveySources
from tests.unit.studies.survey.test_ladders import survey


def plan(folder: Path, *models: str) -> SurveyPlan:
    file = folder / "grades.jsonl"
    rows = [{"question_id": n, "model": model, "score": 5, "turn": 1} for n, model in enumerate(models)]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    judged = {"mt-bench": {"source": str(file), "format": "mt-bench"}}
    spec = survey(benchmarks={"pocket": ["sums"], "judged": judged})
    return SurveyPlan(spec, SurveySources(benchmarks={"mt-bench": f"hash of {models}"}))


def test_judged_benchmark_is_not_asked_and_changes_the_results_alone(tmp_path: Path) -> None:
    one, other = plan(tmp_path, "a"), plan(tmp_path, "b")
    assert list(one.models[0].scores) == ["sums"]
    assert one.results.id != other.results.id
    assert {step.id for step, _ in one.steps()} & {step.id for step, _ in other.steps()} == {
        step.id for step, _ in one.steps() if step.stage not in ("survey-results", "survey-report")
    }


def test_judgments_belong_to_the_models_of_the_survey_by_name(tmp_path: Path) -> None:
    made = plan(tmp_path, "a", "a-code-n10-full-e2")
    (found,) = read_judged(made.spec.benchmarks.judged, made.named).values()
    assert [(model.name, given) for model, given in found] == [("a", [0.5]), ("a-code-n10-full-e2", [0.5])]


def test_model_that_the_survey_does_not_have_is_named_with_the_nearest(tmp_path: Path) -> None:
    made = plan(tmp_path, "a-code-n10-ful-e2")
    with pytest.raises(UserError, match="did you mean 'a-code-n10-full-e2'"):
        read_judged(made.spec.benchmarks.judged, made.named)
