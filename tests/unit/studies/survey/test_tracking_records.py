"""What a survey says to MLflow about its models and their edits: records, by hand."""

from __future__ import annotations

from pathlib import Path

import pytest

from sftlab.studies.load import load_survey
from sftlab.studies.survey.champions import Scored
from sftlab.studies.survey.plan import SurveyPlan
from sftlab.studies.survey.sources import SurveySources
from sftlab.studies.survey.stages.champions import key_of
from sftlab.studies.survey.tracking.card import note
from sftlab.studies.survey.tracking.records import (
    KeptModel,
    TrackedRun,
    TrackedSurvey,
    parent_record,
    run_records,
)

LABELS = {"base": "a", "data": "sums", "method": "full"}
CONFIGS = Path(__file__).parents[4] / "jobs/configs/surveys"


def scored(model: str, score: float) -> Scored:
    return Scored("a", model, "quiz", score, 1.0, score, score)


def survey(edited: bool) -> TrackedSurvey:
    """A base, a run of two epochs, and with `edited` a ladder of two rungs and a method after both epochs."""
    runs = [
        TrackedRun("a", {"base": "a"}),
        TrackedRun("full", LABELS, [KeptModel("t1", 1, Path("t1")), KeptModel("t2", 2, Path("t2"))]),
    ]
    rungs = [KeptModel(f"r{percent:g}", 2, None, percent=percent) for percent in (0.5, 20.0)]
    method = [KeptModel(f"w{epoch}", epoch, None, percent=50.0) for epoch in (1, 2)]
    edits = [
        TrackedRun("full-e2-restored", LABELS, rungs, edit={"region": "layers"}),
        TrackedRun("wise-ft-50", LABELS, method, edit={"method": "wise-ft"}),
    ]
    scores = [scored("r0.5", 0.5), scored("r20", 0.9), scored("w1", 0.2), scored("w2", 0.3)]
    known = [scored("a", 0.1), scored("t1", 0.2), scored("t2", 0.4)]
    return TrackedSurvey(
        "s", "key", [*runs, *(edits if edited else ())], known, [], {}, edited=scores if edited else ()
    )


def test_edits_are_logged_as_models_of_runs_and_move_no_other_record() -> None:
    plain, found = run_records(survey(False)), run_records(survey(True))
    assert [record.digest() for record in found[:2]] == [record.digest() for record in plain]
    ladder, method = found[2:]
    assert (ladder.kind, ladder.params["restore.region"]) == ("edited", "layers")
    assert [(m.name, m.kind, m.params["percent"], m.step) for m in ladder.models] == [
        ("full-e2-restored 0.5 %", "restored", "0.5", 1),
        ("full-e2-restored 20 %", "restored", "20", 20),
    ]
    assert [(m.name, m.params["percent"], m.step, m.path) for m in method.models] == [
        ("wise-ft-50 epoch 1", "50", 1, None),
        ("wise-ft-50 epoch 2", "50", 2, None),
    ]
    metrics = {row.key: row.value for row in ladder.models[1].metrics}
    assert (metrics["score/quiz"], metrics["gain/quiz"]) == (90, 80)
    # The gains of the tuned models alone, 0.1 and 0.3, have the deviation 0.1.
    assert metrics["gain_standardised/mean"] == pytest.approx(8)


def test_counts_of_a_survey_separate_runs_from_edits() -> None:
    found = {row.key: row.value for row in parent_record(survey(True), "").metrics}
    names = ("bases", "runs", "models", "edited")
    assert [found[f"survey/{name}"] for name in names] == [1, 1, 2, 4]
    assert note(survey(True)).startswith("**s**: 1 base models, 1 runs with 2 models, 1 benchmarks.")


def test_every_scored_model_of_a_survey_has_a_key() -> None:
    plan = SurveyPlan(load_survey(CONFIGS / "tiny.yaml"), SurveySources())
    assert len({(model.base, key_of(model)) for model in plan.scored}) == len(plan.scored) == 14
