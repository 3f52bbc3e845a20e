"""The page: complete, self-contained, safe, and the same each time."""

from __future__ import annotations

import csv
import re
from dataclasses import replace
from html.parser import HTMLParser
from urllib.parse import unquote

import pytest

from sftlab.config.leaves import flat
from sftlab.studies.knowledge.report.page import csv_links, render
from sftlab.studies.knowledge.report.sections import NOT_MEASURED
from sftlab.studies.knowledge.results.choice import choose
from sftlab.studies.knowledge.results.tables import TABLES, AccuracyRow, StudyResults
from tests.support.report_study import paper_study, without_layout

SECTIONS = (
    "summary",
    "paper",
    "mastery",
    "accuracy",
    "ladder",
    "training-set",
    "kl",
    "concentration",
    "distribution",
    "training",
    "settings",
)
BUCKETS = (0, 2, 4)
FIGURES = (
    "mastery",
    "size-test",
    "size-test_ood",
    *(f"ladder-{split}-{size}" for size in (240, 1920) for split in ("test", "test_ood")),
    "kl-size",
    "kl-accuracy",
    "concentration",
    "layers",
    "modules",
    *(f"training-{bucket}-{size}" for size in (240, 1920) for bucket in BUCKETS),
)
VOID = {"meta", "circle", "path", "use", "rect"}
HOSTILE = '<script>alert("1")</script>'


class Page(HTMLParser):
    """Collects ids, addresses and open tags."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.ids: list[str] = []
        self.addresses: list[str] = []
        self.tags: list[str] = []
        self.open: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        if tag not in VOID:
            self.open.append(tag)
        for name, value in attrs:
            if name == "id":
                self.ids.append(value or "")
            if name in ("href", "src", "xlink:href", "action", "data", "srcset", "poster"):
                self.addresses.append(value or "")

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self.open.pop()

    def handle_endtag(self, tag: str) -> None:
        if tag not in VOID:
            assert self.open.pop() == tag


@pytest.fixture(scope="module")
def study() -> StudyResults:
    return paper_study(paired=True, buckets=BUCKETS)


def small_study(seeds: tuple[int, ...] = (0,)) -> StudyResults:
    """Every table and kind of figure, but few of them: figures are what takes time."""
    return paper_study(paired=True, buckets=(2,), sizes=(240,), seeds=seeds)


@pytest.fixture(scope="module")
def html(study: StudyResults) -> str:
    return render(study)


def test_every_section_and_figure_is_there_in_order(html: str) -> None:
    page = Page(html)
    assert page.open == []
    assert [found for found in page.ids if found in SECTIONS] == list(SECTIONS)
    figures = [found.removesuffix("-figure_1") for found in page.ids if found.endswith("-figure_1")]
    assert figures == list(FIGURES)
    assert NOT_MEASURED not in html


def test_ids_are_unique_but_for_marks_within_a_figure(html: str) -> None:
    ids = Page(html).ids
    assert len(set(ids)) == len(ids)


def test_page_refers_to_nothing_outside_itself(html: str) -> None:
    page = Page(html)
    local = [address for address in page.addresses if address.startswith("#")]
    assert {address[1:] for address in local} <= set(page.ids)
    assert all(a.startswith(("#", "data:text/csv")) for a in page.addresses)
    without_data = re.sub(r'"data:text/csv[^"]*"', "", html)
    assert not re.search(r"https?:|//[a-z]|@import|@font-face|<link|<iframe|<img|<script", without_data)
    assert all(target.startswith("#") for target in re.findall(r"url\(([^)]*)\)", without_data))


def test_same_results_give_the_same_page(study: StudyResults, html: str) -> None:
    assert render(study) == html
    assert not re.search(r"(19|20)\d\d-\d\d-\d\d", html.replace("2025-01-01T00:00:00+00:00", ""))


def test_hostile_names_are_escaped_wherever_they_stand() -> None:
    plain = small_study()
    cells = {cell.cell: cell.cell + HOSTILE for cell in plain.cells}

    def renamed(row: object) -> object:
        changed = {"cell": cells.get(row.cell, row.cell)} if hasattr(row, "cell") else {}
        if getattr(row, "kind", "") == "module":
            changed["name"] = f"$x$ & {row.name}{HOSTILE}"  # type: ignore[attr-defined]
        return replace(row, **changed) if changed else row  # type: ignore[type-var]

    tables = {name: [renamed(row) for row in getattr(plain, name)] for name in TABLES}
    study = replace(
        plain,
        **tables,
        name=HOSTILE,
        model=f'"{HOSTILE}',
        spec={HOSTILE: {HOSTILE: HOSTILE}},
        provenance={"host": HOSTILE},
    )
    text = render(study)
    page = Page(text)
    assert "script" not in page.tags and "<script" not in text
    assert page.open == []
    assert "&lt;script&gt;" in text


def test_empty_study_still_gives_a_page() -> None:
    text = render(StudyResults("nothing", "no model"))
    ids = Page(text).ids
    assert [found for found in ids if found in SECTIONS] == [s for s in SECTIONS if s != "paper"]
    assert text.count(NOT_MEASURED) == 8


@pytest.mark.parametrize("table", [name for name in TABLES if name not in ("cells", "choice")])
def test_each_table_may_be_missing(table: str) -> None:
    tables = {table: ()} if table != "accuracy" else {"accuracy": (), "choice": ()}
    with without_layout():
        assert Page(render(replace(small_study(), **tables))).open == []


def test_one_cell_one_percentage_and_perfect_accuracy_give_a_page() -> None:
    cell = paper_study().cells[0]
    rows = [
        AccuracyRow(cell.cell, "0", 240, 0, 0.0, split, bucket, 5 if bucket is None else 1, 1, 1.0)
        for split in ("dev", "dev_ood", "test", "test_ood")
        for bucket in (0, 1, 2, 3, 4, None)
    ]
    study = StudyResults("one", "model", cells=[cell], accuracy=rows, choice=choose(rows))
    text = render(study)
    assert "and restore nothing." in text
    assert Page(text).open == []


def test_several_seeds_show_their_spread() -> None:
    text = render(small_study(seeds=(0, 1)))
    assert "standard deviation over training sets" in text
    assert Page(text).open == []


def test_csv_links_hold_the_tables_in_full_precision(study: StudyResults) -> None:
    links = csv_links(study)
    assert set(links) == set(TABLES)
    address, count = links["accuracy"]
    rows = list(csv.DictReader(unquote(address.split(",", 1)[1]).splitlines()))
    assert len(rows) == count == len(study.accuracy)
    first = study.accuracy[0]
    assert (rows[0]["cell"], rows[0]["percent"], float(rows[0]["accuracy"])) == ("base", "", first.accuracy)


def test_each_csv_stands_on_the_page_once(html: str) -> None:
    downloads = re.findall(r'download="([a-z]+)\.csv"', html)
    assert sorted(downloads) == sorted(set(downloads)) == sorted(TABLES)


def test_settings_are_listed_by_their_path() -> None:
    tree = {"a": {"b": 1, "c": {"d": [1, "x"]}}, "e": "text", "f": {}}
    assert flat(tree) == [("a.b", "1"), ("a.c.d", '[1, "x"]'), ("e", "text"), ("f", "{}")]
