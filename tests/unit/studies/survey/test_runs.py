"""The runs of a survey."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from sftlab.studies.survey.runs import runs_of
from sftlab.studies.survey.spec import SurveySpec


def survey(**changes: Any) -> SurveySpec:
    document: dict[str, Any] = {
        "name": "s",
        "bases": {"pocket": {"a": {}, "a2": {"continues": "a"}}},
        "data": {"pocket": ["general", "code", "words"]},
        "benchmarks": {"pocket": ["sums"]},
        "sft": {"epochs": 3},
        "runs": [{"sizes": [10]}],
    }
    return SurveySpec.model_validate(document | changes)


def test_each_set_is_trained_on_every_base_base_by_base() -> None:
    found = [(run.base, run.data, run.members, run.epochs) for run in runs_of(survey())]
    sets = ("general", "code", "words")
    assert found == [(base, name, (name,), (3,)) for base in ("a", "a2") for name in sets]


def test_all_and_leave_one_out_name_their_members() -> None:
    runs = runs_of(
        survey(
            runs=[
                {"data": "all", "sizes": [5], "bases": ["a"]},
                {"data": "leave-one-out", "sizes": [5], "bases": ["a"]},
            ]
        )
    )
    assert {run.data: run.members for run in runs} == {
        "all": ("general", "code", "words"),
        "all-general": ("code", "words"),
        "all-code": ("general", "words"),
        "all-words": ("general", "code"),
    }


def test_method_schedule_epochs_and_seed_change_the_settings_of_training() -> None:
    group = {
        "bases": ["a"],
        "data": ["code"],
        "sizes": [5],
        "methods": ["full", {"lora": {"rank": 2}, "learning_rate": 0.01, "batch_size": 4}],
        "schedule": "constant",
        "epochs": 2,
        "seeds": [0, 7],
    }
    runs = runs_of(survey(runs=[group]))
    assert [(run.method, run.sft.seed) for run in runs] == [
        ("full", 0),
        ("full-s7", 7),
        ("lora", 0),
        ("lora-s7", 7),
    ]
    lora = runs[2].sft
    assert lora.lora is not None
    assert (lora.lora.rank, lora.learning_rate, lora.batch_size, lora.schedule, lora.epochs) == (
        2,
        0.01,
        4,
        "constant",
        2,
    )
    assert len({run.name for run in runs}) == 4


@pytest.mark.parametrize(
    ("seeds", "methods", "names"),
    [
        ([7], ["full"], ["a-code-n5-full-s7"]),
        ([0, 7], ["full", "full-s7"], ["a-code-n5-full", "a-code-n5-full-s7"]),
        ([7, 0], ["full", "full-s0"], ["a-code-n5-full-s7", "a-code-n5-full-s0"]),
    ],
)
def test_seeds_after_the_first_are_part_of_the_method(
    seeds: list[int], methods: list[str], names: list[str]
) -> None:
    runs = runs_of(survey(runs=[{"bases": ["a"], "data": ["code"], "sizes": [5], "seeds": seeds}]))
    assert [run.method for run in runs] == methods
    assert [run.name for run in runs] == names


def test_equal_runs_of_two_groups_are_one_with_the_epochs_of_both() -> None:
    groups = [
        {"bases": ["a"], "data": ["code"], "sizes": [5], "keep_epochs": [1]},
        {"bases": ["a"], "data": ["code"], "sizes": [5], "keep_epochs": "all"},
    ]
    (run,) = runs_of(survey(runs=groups))
    assert run.epochs == (1, 2, 3)


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"runs": [{"sizes": [5], "bases": ["b"]}]}, "runs.0.bases: unknown 'b'"),
        ({"runs": [{"sizes": [5], "data": ["lima"]}]}, "runs.0.data: unknown 'lima'"),
        ({"runs": [{"sizes": [5], "keep_epochs": [4]}]}, "runs.0.keep_epochs"),
        ({"runs": [{"sizes": [5], "epochs": 2**70, "keep_epochs": "all"}]}, "at most 10,000"),
        (
            {"data": {"pocket": ["code"]}, "runs": [{"sizes": [5], "data": "leave-one-out"}]},
            "two or more sets",
        ),
        ({"bases": {"pocket": {"a": {"continues": "z"}}}}, "bases.pocket.a.continues: 'z'"),
        ({"benchmarks": {"pocket": ["summs"]}}, "benchmarks.pocket: unknown 'summs'"),
        ({"benchmarks": {}}, "benchmarks: none is given"),
    ],
)
def test_names_that_are_unknown_are_refused(changes: dict[str, Any], named: str) -> None:
    with pytest.raises(ValidationError) as refused:
        survey(**changes)
    assert named in str(refused.value)
