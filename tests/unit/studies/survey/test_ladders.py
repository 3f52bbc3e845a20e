"""Ladders and strategies of a survey: what is trained, edited and asked."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from sftlab.errors import UserError
from sftlab.execution.runtime import Runtime
from sftlab.studies.survey.check import check
from sftlab.studies.survey.plan import SurveyPlan
from sftlab.studies.survey.runs import runs_of
from sftlab.studies.survey.sources import SurveySources
from sftlab.studies.survey.spec import SurveySpec
from tests.support.refusals import refused


def survey(**changes: Any) -> SurveySpec:
    document: dict[str, Any] = {
        "name": "s",
        "bases": {"pocket": {"a": {}, "b": {"family": "b"}}},
        "data": {"pocket": ["general", "code"]},
        "benchmarks": {"pocket": ["sums", "facts"]},
        "sft": {"epochs": 2},
        "runs": [{"sizes": [10], "keep_epochs": [1]}],
    }
    return SurveySpec.model_validate(document | changes)


def plan(**changes: Any) -> SurveyPlan:
    return SurveyPlan(survey(**changes), SurveySources())


def methods(*given: Any) -> dict[str, Any]:
    return {"runs": [{"bases": ["a"], "data": ["code"], "sizes": [10], "methods": list(given)}]}


def ids(of: SurveyPlan, stage: str) -> set[str]:
    return {step.id for step, _ in of.steps() if step.stage == stage}


def test_ladder_restores_the_last_epoch_of_the_selected_models() -> None:
    found = plan(restore={"percents": [0, 5, 20], "bases": ["a"], "data": ["code"]}).ladders
    assert list(found) == ["a-code-n10-full-e2"]
    (rungs,) = found.values()
    assert [(model.name, model.rung and model.rung.percent) for model in rungs] == [
        ("a-code-n10-full-e2-r5", 5.0),
        ("a-code-n10-full-e2-r20", 20.0),
    ]


def test_ladder_adds_steps_and_moves_none() -> None:
    before, after = plan(), plan(restore={"percents": [5], "data": ["code"]})
    for stage in ("survey-tuned", "movement", "scores"):
        assert ids(before, stage) <= ids(after, stage)
    assert len(ids(after, "scores")) - len(ids(before, "scores")) == 2 * 2
    assert len(ids(after, "change")) == 2
    longer = plan(restore={"percents": [5, 20], "data": ["code"]})
    assert ids(after, "scores") < ids(longer, "scores")


def test_every_step_follows_those_that_it_is_made_of_with_masks_and_edits() -> None:
    masked = {"strategy": "masked-update", "parameters": {"percent": 5, "size": 4}}
    made = plan(
        **methods(masked, {"strategy": "dare", "percent": 30}), restore={"percents": [5], "methods": None}
    )
    seen: set[str] = set()
    for step, _ in made.steps():
        assert set(step.inputs.values()) <= seen, step.slug
        assert step.id not in seen, step.slug
        seen.add(step.id)


def test_edit_shares_the_training_of_the_plain_method_and_is_asked_itself() -> None:
    made = plan(**methods("full", {"strategy": "wise-ft", "percent": 50}))
    (edited,), (_, _, tuned) = made.edited, sorted(made.models, key=lambda model: model.run is not None)
    assert edited.tuned is not None and tuned.tuned is not None
    assert (edited.tuned.id, edited.tuned.slug) == (tuned.tuned.id, tuned.tuned.slug)
    assert edited.change is None  # interpolation takes no weights by their change
    assert edited.run is not None and edited.run.method == "wise-ft-50"
    assert {step.id for step in edited.scores.values()}.isdisjoint(step.id for step in tuned.scores.values())
    assert len(ids(made, "survey-tuned")) == 1


def test_strategy_of_training_changes_its_settings() -> None:
    (run,) = runs_of(
        survey(**methods({"strategy": "l2-sp", "parameters": {"strength": 10}, "label": "pulled"}))
    )
    assert (run.sft.l2_sp, run.method, run.rung) == (10.0, "pulled", None)


def test_mask_has_a_probe_on_a_part_of_the_set() -> None:
    made = plan(**methods({"strategy": "masked-update", "parameters": {"percent": 5, "size": 4}}))
    (probe,) = made.probes.values()
    assert probe.run is not None and (probe.run.size, probe.run.sft.mask) == (4, None)
    (run,) = made.runs
    tuned = next(model.tuned for model in made.models if model.run == run)
    assert tuned is not None and probe.tuned is not None
    assert tuned.inputs["probe"] == probe.tuned.id


@pytest.mark.parametrize(
    ("method", "named"),
    [
        ({"strategy": "wise-ft"}, "edits the tuned model; give it a `percent`"),
        ({"strategy": "l2-sp", "parameters": {"strength": 1}, "percent": 5}, "it has no `percent`"),
        ({"strategy": "divided"}, "chooses training sets by mastery"),
        ({"strategy": "wise-fit", "percent": 5}, "did you mean 'wise-ft'?"),
        ({"strategy": "masked-update", "parameters": {"percent": 5, "size": 40}}, "has only 10 examples"),
    ],
)
def test_strategies_that_a_survey_cannot_follow_are_refused(method: dict[str, Any], named: str) -> None:
    with pytest.raises(UserError, match=named):
        list(plan(**methods(method)).steps())


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"restore": {"percents": [0]}}, "no percentage above 0"),
        ({"restore": {"bases": ["z"]}}, "restore.bases: unknown 'z'"),
        ({"restore": {"method": "wise-fit"}}, "wise-ft"),
        (methods({"percent": 5}), "belong to a `strategy`"),
    ],
)
def test_wrong_ladders_are_refused_as_the_file_is_read(changes: dict[str, Any], named: str) -> None:
    with pytest.raises(ValidationError, match=named):
        survey(**changes)


def test_few_shot_form_is_asked_beside_the_zero_shot_one_with_the_same_questions() -> None:
    files = {"tickets": {"source": "tickets.jsonl", "shots": 3}}
    made = SurveyPlan(survey(benchmarks={"files": files}), SurveySources(benchmarks={"tickets": "missing:x"}))
    assert made.spec.benchmarks.names == ("tickets", "tickets-3shot")
    assert made.questions["tickets"] == made.questions["tickets-3shot"]
    zero, few = made.models[0].scores.values()
    assert zero.id != few.id
    assert [step.stage for step, _ in made.steps()].count("questions") == 1


def test_programs_run_only_where_the_survey_allows_it() -> None:
    code = {"files": {"mbpp": {"source": "mbpp.jsonl"}}}
    with pytest.raises(UserError, match=r"benchmarks\.code\.allow: true"):
        check(survey(benchmarks={"code": code}), Runtime())
    made = SurveyPlan(survey(benchmarks={"code": code}), SurveySources(benchmarks={"mbpp": "missing:x"}))
    assert made.max_tokens("mbpp") == 512
    longer = {"code": {**code, "seconds": 9}}
    other = SurveyPlan(survey(benchmarks=longer), SurveySources(benchmarks={"mbpp": "missing:x"}))
    assert other.questions["mbpp"].id == made.questions["mbpp"].id
    assert other.models[0].scores["mbpp"].id != made.models[0].scores["mbpp"].id


def test_ladder_without_a_model_is_refused_before_anything_is_computed() -> None:
    with refused("none of the survey's runs", place="restore"):
        check(survey(restore={"sizes": [99]}), Runtime())
