"""The documents: links lead somewhere, and design pages stay short."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from sftlab.execution.stage import Stage
from sftlab.studies.knowledge.pipeline import STAGES as KNOWLEDGE
from sftlab.studies.survey.pipeline import STAGES as SURVEY

ROOT = Path(__file__).parents[2]
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])
DESIGN_LINES = 80  # two screens


def headings(page: Path) -> set[str]:
    """The anchors of a page, as code hosts make them of its headings."""
    found = re.findall(r"^#+ (.+)$", page.read_text(), re.MULTILINE)
    plain = (re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading).lower() for heading in found)
    return {re.sub(r"[^\w -]", "", heading).replace(" ", "-") for heading in plain}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_relative_links_lead_to_files_and_headings(page: Path) -> None:
    for link in re.findall(r"\]\(([^)\s]+)\)", page.read_text()):
        if re.match(r"\w+:", link):
            continue
        name, _, anchor = link.partition("#")
        target = page.parent / name if name else page
        assert target.exists(), link
        assert not anchor or anchor in headings(target), link


def test_every_subsystem_has_a_design_page_of_at_most_two_screens() -> None:
    pages = {page.stem: len(page.read_text().splitlines()) for page in (ROOT / "docs/design").glob("*.md")}
    subsystems = {"store", "execution", "inference", "training", "weights", "sweeps"}
    assert pages.keys() >= subsystems | {"survey", "tracking", "reporting"}
    assert max(pages.values()) <= DESIGN_LINES, pages


def test_files_that_design_pages_name_exist() -> None:
    named = {
        (page.name, name)
        for page in (ROOT / "docs/design").glob("*.md")
        for name in re.findall(r"`((?:\w+/)+\w+\.py)`", page.read_text())
    }
    places = (ROOT / "platform/sftlab", ROOT)
    assert {one for one in named if not any((place / one[1]).exists() for place in places)} == set()
    assert len(named) > 50


@pytest.mark.parametrize("stage", [*KNOWLEDGE, *SURVEY], ids=lambda stage: stage.name)
def test_the_figure_of_the_data_flow_has_every_stage(stage: Stage) -> None:
    figure = (ROOT / "docs/architecture.md").read_text().split("```mermaid")[1].split("```")[0]
    boxes = {name for label in re.findall(r"\w\[\"([^\"]+)\"\]", figure) for name in label.split(", ")}
    assert stage.name in boxes
