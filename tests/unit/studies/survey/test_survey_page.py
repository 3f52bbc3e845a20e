"""The page of a survey: the order of the paper, the best models, every table as a download."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any
from urllib.parse import unquote

import pytest

from sftlab.studies.survey.compare import Comparison, Options, compare_file, csv_text
from sftlab.studies.survey.report import page
from sftlab.studies.survey.report.champion_section import CHAMPIONS, champions
from tests.support import survey_tables

ROW: dict[str, Any] = {
    "base": "m0",
    "name": "m0-good-n1000-full",
    "epoch": 3,
    "model": "abc",
    "dev": 1.25,
    "test": 0.75,
    "low": 0.25,
    "high": 1.5,
    "ties": 0,
    "questions": 30,
}


@pytest.fixture(scope="module")
def scores(tmp_path_factory: pytest.TempPathFactory) -> Comparison:
    rows = [row for row in survey_tables.rows(models=survey_tables.MODELS[:3]) if row[5] in ("quiz", "sums")]
    file = survey_tables.write(tmp_path_factory.mktemp("scores") / "scores.csv", rows)
    return compare_file(file, Options())


def with_champions(scores: Comparison, *rows: dict[str, Any]) -> Comparison:
    return replace(scores, tables={**scores.tables, CHAMPIONS: list(rows)})


@pytest.fixture(scope="module")
def of_survey(scores: Comparison) -> str:
    return page.render(with_champions(scores, ROW))


@pytest.fixture(scope="module")
def of_table(scores: Comparison) -> str:
    return page.render(scores)


def order(html: str) -> list[str]:
    return re.findall(r'<section id="(\w+)"', html)


def test_survey_s_page_begins_with_the_best_models_and_ends_with_claims(of_survey: str) -> None:
    found = order(of_survey)
    assert found[:3] == ["summary", "champions", "gains"] and found[-2:] == ["faults", "claims"]


def test_page_of_a_table_that_others_brought_begins_with_claims_and_faults(of_table: str) -> None:
    found = order(of_table)
    assert found[:4] == ["summary", "claims", "faults", "gains"] and CHAMPIONS not in found


def test_best_model_is_better_only_where_its_interval_is_above_0(scores: Comparison) -> None:
    section = champions(with_champions(scores, ROW, {**ROW, "base": "m1", "low": -0.25}))
    assert section is not None and section.see.endswith("better than its base for m0.")
    entries = section.tables[0].rows[0].entries
    assert [entry.text for entry in entries] == ["m0-good-n1000-full", "3", "+1.25", "–", "+0.75", "30"]
    assert entries[4].note == "[+0.25, +1.50]"
    none = champions(with_champions(scores, {**ROW, "low": -0.25}))
    assert none is not None and "no model is distinguishable" in none.see
    assert champions(with_champions(scores)) is None and champions(scores) is None


def test_every_table_of_a_section_is_a_download_with_its_bytes(scores: Comparison, of_survey: str) -> None:
    links = dict(
        re.findall(r'<a href="data:text/csv;charset=utf-8,([^"]+)" download="(\w+)\.csv"', of_survey)
    )
    found = {name: unquote(text) for text, name in links.items()}
    for name in (CHAMPIONS, "gains", "claims", "components"):
        rows = [ROW] if name == CHAMPIONS else list(scores.tables[name])
        assert found[name] == csv_text(rows)


def test_table_that_is_too_long_for_a_page_has_no_address(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [{"name": "a,b", "value": 1.5}]
    assert page.downloaded(rows) == ("data:text/csv;charset=utf-8,name%2Cvalue%0A%22a%2Cb%22%2C1.5%0A", 1)
    monkeypatch.setattr(page, "LONGEST_CSV", 10)
    assert page.downloaded(rows) == ("", 1)


def test_command_that_made_the_page_is_named(of_survey: str, of_table: str) -> None:
    assert "Made by sftlab compare from scores.csv" in of_table
    assert "Made by sftlab survey from" in of_survey
