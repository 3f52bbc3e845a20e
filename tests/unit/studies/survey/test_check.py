"""Surveys that cannot end in a report are refused before anything is computed."""

from __future__ import annotations

from pathlib import Path

import pytest

from sftlab.studies.load import load_survey
from sftlab.studies.survey.check import check_rows, differing, require_report
from tests.support.refusals import refused

CONFIGS = Path(__file__).parents[4] / "jobs/configs/surveys"


@pytest.mark.parametrize("name", ["tiny", "pocket", "massive-sft"])
def test_surveys_of_the_repository_end_in_a_report(name: str) -> None:
    spec = load_survey(CONFIGS / f"{name}.yaml")
    check_rows(spec)
    require_report(spec)


@pytest.mark.parametrize(
    ("override", "difference"),
    [
        ("runs.1={sizes: [40], seeds: [1]}", "sft.seed (0 and 1)"),
        ("runs.0.methods=[{lora: {rank: 4}},{lora: {rank: 8}}]", "sft.lora.rank (4 and 8)"),
        ("runs.0.methods=[full,{learning_rate: 0.5}]", "sft.learning_rate (0.001 and 0.5)"),
    ],
)
def test_two_models_of_one_row_are_refused_with_their_difference(override: str, difference: str) -> None:
    with refused("on facts-short", place="runs", value=difference, advice="a `label`"):
        check_rows(load_survey(CONFIGS / "tiny.yaml", [override]))


def test_seeds_of_one_group_are_rows_of_their_methods() -> None:
    spec = load_survey(CONFIGS / "tiny.yaml", ["runs.0.seeds=[0,1]"])
    check_rows(spec)
    require_report(spec)


def test_two_runs_of_one_name_are_refused() -> None:
    groups = "runs=[{sizes: [9], seeds: [0, 7]}, {sizes: [9], seeds: [7], methods: [{learning_rate: 0.5}]}]"
    with refused(
        r"\(full-s7\), and base a on", place="runs", value="a-facts-short-n9-full-s7", advice="`label`"
    ):
        check_rows(load_survey(CONFIGS / "tiny.yaml", [groups]))


@pytest.mark.parametrize("override", ["runs.0.bases=[a]", "runs.0.data=[chatty]", "runs.0.data=all"])
def test_survey_without_two_bases_on_two_sets_is_refused_before_it_runs(override: str) -> None:
    with refused("no runs", place="runs", expected="two or more bases", advice="--until survey-results"):
        require_report(load_survey(CONFIGS / "tiny.yaml", [override, "measure.geometry=null"]))


def test_fields_that_only_one_side_has_differ() -> None:
    assert differing({"a": 1, "b": {"c": 2}}, {"a": 1}) == "sft.b.c (2 and None)"
