"""What a survey cost, from the records of its results."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from sftlab.studies.survey.about import About
from sftlab.studies.survey.compare import Comparison, compare
from sftlab.studies.survey.costs import Amount, Committed, costs, trained
from sftlab.studies.survey.report import cost_section
from sftlab.studies.survey.report.cost_section import duration
from sftlab.studies.survey.score_table import read_scores
from tests.support import survey_tables as planted


def at(stage: str, time: str, size: int = 1000, cores: str = "2") -> Committed:
    return Committed(stage, f"2026-11-28T{time}+00:00", size, cores)


COMMITS = [
    at("scores", "10:02:00", cores="8"),
    at("base", "10:00:00", 5000),
    at("base", "10:01:30", 5000),
    at("scores", "12:02:00"),
    at("scores", "12:02:10"),
]
AMOUNTS = {"scores": Amount(questions=20, tokens=70)}


def by_stage(rows: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    return {row["stage"]: row for row in rows}


def test_time_of_a_result_is_since_the_commit_before_it_of_any_stage() -> None:
    rows = costs(COMMITS, AMOUNTS)
    assert [row["stage"] for row in rows] == ["base", "scores"]
    found = by_stage(rows)
    assert found["base"]["seconds"] == 90.0  # the first result has no commit before it
    assert found["scores"]["seconds"] == 30.0 + 10.0
    assert (found["base"]["bytes"], found["scores"]["results"]) == (10_000, 3)
    assert (found["scores"]["first"], found["scores"]["last"]) == (
        "2026-11-28T10:02:00+00:00",
        "2026-11-28T12:02:10+00:00",
    )


def test_two_hours_between_commits_are_a_pause() -> None:
    found = by_stage(costs(COMMITS, AMOUNTS))
    assert (found["base"]["pauses"], found["scores"]["pauses"]) == (0, 1)


def test_amounts_and_machines_are_next_to_the_stage() -> None:
    found = by_stage(costs(COMMITS, AMOUNTS))
    assert (found["scores"]["questions"], found["scores"]["tokens"], found["scores"]["cores"]) == (
        20,
        70,
        "2, 8",
    )
    assert (found["base"]["questions"], found["base"]["tokens"], found["base"]["cores"]) == (None, None, "2")


def test_processors_of_training_are_those_of_all_workers() -> None:
    on_cores = {"workers": 2, "gpus_per_worker": 0, "threads": 3}
    found = trained([(100, 5.0, on_cores), (50, 1.0, {**on_cores, "threads": None})])
    assert (found.tokens, found.seconds, found.processor_seconds) == (150, 6.0, 5.0 * 6 + 1.0 * 2)
    assert found.processor == "core"
    on_gpus = trained([(100, 5.0, {"workers": 4, "gpus_per_worker": 2, "threads": 8})])
    assert (on_gpus.processor_seconds, on_gpus.processor) == (40.0, "GPU")
    assert trained([]) == Amount()


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.0, "0 s"), (119.0, "119 s"), (120.0, "2 min"), (7199.0, "120 min"), (7200.0, "2.0 h")],
)
def test_duration_has_the_unit_that_suits_it(seconds: float, text: str) -> None:
    assert duration(seconds).replace("\N{NO-BREAK SPACE}", " ") == text


@pytest.fixture(scope="module")
def compared(tmp_path_factory: pytest.TempPathFactory) -> Comparison:
    file: Path = tmp_path_factory.mktemp("costs") / "scores.csv"
    return compare(read_scores(planted.write(file, planted.rows(models=planted.MODELS[:3]))), About())


def test_section_says_disk_time_questions_and_training(compared: Comparison) -> None:
    tuned = [at("survey-tuned", "10:01:40"), *COMMITS]
    amounts = {**AMOUNTS, "survey-tuned": Amount(None, 1718, 4.0, 8.0, "core")}
    found = replace(compared, tables={**compared.tables, "costs": costs(tuned, amounts)})
    section = cost_section.costs(found)
    assert section is not None
    text = section.see.replace("\N{NO-BREAK SPACE}", " ")
    assert text.startswith(
        "The 6 results of this survey take 14 kB of disk. 2 min passed between their commits"
    )
    assert "without 1 interval of more than 60 min" in text
    assert "Models answered 20 questions with 70 tokens." in text
    assert "Fine-tuning took 1,718 tokens and 4 s of steps, 8 s of cores." in text
    (table,) = section.tables
    assert [row.heading for row in table.rows] == ["base", "survey-tuned", "scores"]
    assert [entry.text for entry in table.rows[1].entries][3:] == ["–", "1,718"]


def test_table_of_scores_has_no_costs(compared: Comparison) -> None:
    assert cost_section.costs(compared) is None
