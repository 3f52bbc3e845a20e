"""The page of several base models."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest

from sftlab.store.record import Step
from sftlab.studies.knowledge.models import OfModel, write_models_page
from sftlab.studies.knowledge.report.models_page import model_names, render_models
from sftlab.studies.knowledge.results.rows import MasteryRow
from sftlab.studies.knowledge.results.tables import Results
from tests.support.refusals import refused
from tests.support.report_sweep import made_up_sweep


@pytest.fixture(scope="module")
def results() -> list[Results]:
    made = made_up_sweep(("restore",), ("0", "4"), (60, 240), (0, 1), (0.0, 20.0)).summarise_quickly()
    rows = [MasteryRow("train", bucket, facts) for bucket, facts in enumerate((10, 20, 30, 25, 15))]
    other = [MasteryRow("train", bucket, facts) for bucket, facts in enumerate((60, 10, 10, 10, 10))]
    return [
        replace(made, model=name, variants=[replace(variant, mastery=mastery) for variant in made.variants])
        for name, mastery in (("Llama-2-7b-hf", rows), ("invented", other))
    ]


def test_the_page_has_each_model_in_every_section_and_refers_to_nothing_outside(
    results: list[Results],
) -> None:
    page = render_models(results)
    assert not re.search(r"""(?:src|href)=["'](?!#|data:)""", page)
    for section in ("recommended", "mastery", "accuracy"):
        part = page.partition(f'<section id="{section}">')[2].partition("</section>")[0]
        assert part.count("Llama-2-7b-hf") and part.count("invented")
    assert "paper: LLaMA-2-7B" in page and "2 base models compared" in page
    assert "has the most well-mastered train facts (15 % in bucket 4)" in page.replace(
        "\N{NO-BREAK SPACE}", " "
    )


def test_models_of_one_name_are_named_with_their_studies(results: list[Results]) -> None:
    first, second = results
    named = [replace(first, model="pocket", name="a"), replace(second, model="pocket", name="b")]
    assert model_names(named) == ["pocket, a", "pocket, b"]
    assert model_names([named[0], named[0]]) == ["pocket, a (1)", "pocket, a (2)"]
    assert model_names(results) == ["Llama-2-7b-hf", "invented"]


def test_results_about_other_questions_are_refused_with_the_difference(
    results: list[Results], tmp_path: Path
) -> None:
    def step(topics: int) -> Step:
        return Step("facts", "facts", {"world": {"topics": topics, "seed": 0}}, {}, 1)

    first = OfModel(Path("a.yaml"), step(4), results[0])
    with refused(place="b.yaml: facts.world.topics", field="facts.world.topics", value="5", expected="4"):
        write_models_page([first, OfModel(Path("b.yaml"), step(5), results[1])], tmp_path / "page.html")
    assert not (tmp_path / "page.html").exists()
    write_models_page([first, OfModel(Path("b.yaml"), step(4), results[1])], tmp_path / "new" / "page.html")
    assert (tmp_path / "new" / "page.html").read_text().lstrip().startswith("<!DOCTYPE html>")
