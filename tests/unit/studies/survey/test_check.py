"""Surveys that cannot end in a report are refused before anything is computed."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from sftlab.cli.common import Shown
from sftlab.cli.survey import Extent, open_survey, survey_plan
from sftlab.studies.load import load_survey
from sftlab.studies.survey.check import ROWS, check_files, check_rows, differing, require_report
from sftlab.studies.survey.spec import SurveySpec
from tests.support.refusals import refused

CONFIGS = Path(__file__).parents[4] / "jobs/configs/surveys"


@pytest.mark.parametrize("name", ["tiny", "pocket", "massive-sft", "massive-sft-benchmarks", "table5"])
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


HUMAN_EVAL = {"task_id": "t", "prompt": "def f(x):\n", "test": "def check(f): pass"}


@pytest.mark.parametrize(
    ("row", "problem"),
    [
        ({"question": "x?", "choices": ["a", "b"], "label": "D"}, "label is 'D'"),
        ({"question": " ", "answer": "a"}, "question is ' '"),
        ({"question": "x?", "answer": "a", "metric": "bleu"}, "metric is 'bleu'"),
    ],
)
def test_row_of_a_benchmark_that_cannot_be_asked_is_refused_before_it_runs(
    row: dict[str, object], problem: str, tmp_path: Path
) -> None:
    with refused(problem, place="asked.jsonl, row 2"):
        check_files(reading(tmp_path, [{"question": "y?", "answer": "b"}, row], []), {"benchmarks"})


def test_more_examples_than_questions_and_bad_programs_are_refused_before_a_survey_runs(
    tmp_path: Path,
) -> None:
    spec = reading(tmp_path, [{"question": "y?", "answer": "b"}], [], "benchmarks.files.asked.shots=1")
    with refused("shots = 1", place="asked.jsonl"):
        check_files(spec, {"benchmarks"})
    (tmp_path / "code.jsonl").write_text(json.dumps(HUMAN_EVAL | {"entry_point": ""}), encoding="utf-8")
    code = f"benchmarks.code={{files: {{code: {{source: {tmp_path}/code.jsonl}}}}}}"
    with refused("entry_point is ''", place="code.jsonl, row 1"):
        check_files(reading(tmp_path, [{"question": "y?", "answer": "b"}], [], code), {"benchmarks"})


def test_first_rows_of_data_are_refused_before_a_survey_runs_and_no_further_ones_are_read(
    tmp_path: Path,
) -> None:
    asked, good = [{"question": "y?", "answer": "b"}], {"instruction": "a", "output": "b"}
    late = reading(tmp_path, asked, [good] * ROWS + [{"instruction": "a", "output": ""}])
    check_files(late, {"data", "benchmarks"})
    bad = reading(tmp_path, asked, [good, {"instruction": "a", "output": ""}])
    with refused("", place="taught.jsonl, row 2"):
        check_files(bad, {"data"})
    check_files(bad, {"benchmarks"})  # nothing is left to draw


def test_plan_refuses_what_a_run_refuses(tmp_path: Path) -> None:
    def planned(extent: Extent, *overrides: str) -> Shown:
        build = open_survey(CONFIGS / "tiny.yaml", None, str(tmp_path / "store"), overrides)
        return survey_plan(build, extent, by_default=True)

    one_base = ("runs.0.bases=[a]", "measure.geometry=null")
    with refused("no runs", place="runs"):
        planned(Extent(), *one_base)
    assert planned(Extent(until="survey-results"), *one_base).data["survey"] == "tiny-survey"
    (tmp_path / "asked.jsonl").write_text('{"question": "x?", "answer": []}\n', encoding="utf-8")
    with refused("answer is", place="asked.jsonl, row 1"):
        planned(Extent(), f"benchmarks.files={{asked: {{source: {tmp_path}/asked.jsonl}}}}")


def reading(
    folder: Path, asked: list[dict[str, object]], taught: list[dict[str, str]], *overrides: str
) -> SurveySpec:
    """The tiny survey with a benchmark and, where rows of it are given, an instruction set in files."""
    for name, rows in (("asked", asked), ("taught", taught)):
        text = "".join(json.dumps(row) + "\n" for row in rows)
        (folder / f"{name}.jsonl").write_text(text, encoding="utf-8")
    files = [f"benchmarks.files={{asked: {{source: {folder}/asked.jsonl}}}}"]
    if taught:
        files.append(f"data.files={{taught: {{source: {folder}/taught.jsonl}}}}")
    return load_survey(CONFIGS / "tiny.yaml", [*files, *overrides])


def test_fields_that_only_one_side_has_differ() -> None:
    assert differing({"a": 1, "b": {"c": 2}}, {"a": 1}) == "sft.b.c (2 and None)"
