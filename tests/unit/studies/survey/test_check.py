"""Errors of a survey that are found before anything is computed: its runtime, its paths, its bases in folders."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from sftlab.errors import UserError
from sftlab.execution.checks import RAY_JOB
from sftlab.execution.runtime import Runtime
from sftlab.studies.load import load_survey
from sftlab.studies.survey.check import check, check_bases
from sftlab.studies.survey.plan import SurveyPlan
from sftlab.studies.survey.sources import SurveySources, resolve
from sftlab.studies.survey.spec import SurveySpec
from tests.support.weights_models import save_model

TINY = Path(__file__).parents[4] / "jobs/configs/surveys/tiny.yaml"


def survey(base: Path | str, *overrides: str) -> SurveySpec:
    """The tiny survey with a further base, which is a folder."""
    return load_survey(TINY, [f"bases.folders={{mine: {{path: {base}, family: f}}}}", *overrides])


def test_a_relative_store_in_a_submitted_job_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(RAY_JOB, "{}")
    with pytest.raises(UserError, match=r"runtime\.store=runs/store: a submitted job"):
        check(survey("m"), Runtime(store="runs/store"))
    check(survey("m"), Runtime(store="s3://bucket/a"))


def test_the_address_of_a_base_is_refused_by_its_field() -> None:
    with pytest.raises(UserError, match=r"bases\.folders\.mine\.path=s3://bucket/m: an address"):
        check(survey("s3://bucket/m"), Runtime())


def test_a_base_whose_layers_cannot_be_adapted_is_refused(tmp_path: Path) -> None:
    save_model(tmp_path / "m", "llama", seed=0, dtype=torch.float32)
    method = "runs=[{sizes: [4], methods: [{lora: {target_modules: [no_such]}}]}]"
    with pytest.raises(UserError, match="no_such"):
        check_bases(survey(tmp_path / "m", method), print)


def test_a_missing_base_is_named_and_read_by_the_stages_that_use_it(tmp_path: Path) -> None:
    spec = survey(tmp_path / "none")
    outside = SurveyPlan(spec, resolve(spec, tmp_path / "store")).outside
    assert outside.missing() == [str(tmp_path / "none")]
    assert set(outside.by_stage) == {"drawn", "questions", "survey-tuned", "movement", "scores"}
    assert outside.by_stage["questions"] == ()
    with pytest.raises(UserError, match=r"none: not found\. Correct the path"):
        outside.require()
    assert SurveySources().outside.missing() == []
