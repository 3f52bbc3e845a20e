"""What a survey says about its names."""

from __future__ import annotations

import pytest

from sftlab.studies.survey.described import described, mean_tokens
from tests.support.refusals import refused
from tests.unit.studies.survey.test_plan import ids, plan

QUESTIONS = {"facts": 20, "sums": 20, "moods": 20, "yes-no": 20}


def test_length_of_a_set_is_its_tokens_over_bases_at_its_largest_size() -> None:
    rows = [
        {"model": "a", "data": "one", "size": 10, "tokens": 100.0},
        {"model": "a", "data": "one", "size": 40, "tokens": 4.0},
        {"model": "b", "data": "one", "size": 40, "tokens": 7.0},
        {"model": "a", "data": "two", "size": 40, "tokens": None},
    ]
    assert mean_tokens(rows) == {"one": 5.5}


def test_facts_of_the_file_replace_what_was_measured() -> None:
    survey = plan("about={data: {chatty: {length: 9}}, benchmarks: {sums: {transfer: ja, questions: 7}}}")
    found = described(survey, QUESTIONS, {"chatty": 3.0, "sums-steps": 4.0})
    assert {name: data.length for name, data in found.data.items()} == {
        "facts-short": None,
        "sums-steps": 4.0,
        "chatty": 9.0,
    }
    assert (found.benchmarks["sums"].transfer, found.benchmarks["sums"].questions) == ("ja", 7)
    assert found.benchmarks["facts"].questions == 20
    assert found.models["a2"].language == "second"
    assert all(one.main for one in found.benchmarks.values())


def test_marked_benchmarks_and_no_parts_of_totals_are_in_the_main_analysis() -> None:
    marked = described(plan("about={benchmarks: {sums: {main: true}}}"), QUESTIONS, {})
    assert [name for name, one in marked.benchmarks.items() if one.main] == ["sums"]
    parts = described(plan("about={benchmarks: {sums: {mean_of: [facts, moods]}}}"), QUESTIONS, {})
    assert [name for name, one in parts.benchmarks.items() if one.main] == ["sums", "yes-no"]


def test_facts_move_results_and_report_alone() -> None:
    known = ids(plan("about=null"))
    assert ids(plan("about={}")) == known
    said = plan("about={data: {chatty: {length: 9}}}")
    moved = [step.stage for step, _ in said.steps() if step.id not in known]
    assert moved == ["survey-results", "survey-report"]


@pytest.mark.parametrize(
    ("about", "message"),
    [
        ("{data: {chatti: {length: 9}}}", r"about\.data: unknown 'chatti'; known are facts-short"),
        ("{benchmarks: {sum: {chance: 9}}}", r"about\.benchmarks: unknown 'sum'; known are facts, sums"),
        ("{benchmarks: {sums: {chance: 120}}}", r"about\.benchmarks\.sums\.chance: 120 is no percentage"),
        ("{benchmarks: {sums: {mean_of: [fact]}}}", r"sums\.mean_of: unknown 'fact'"),
    ],
)
def test_wrong_names_and_levels_are_refused(about: str, message: str) -> None:
    with refused(message):
        plan(f"about={about}")
