"""The page of a study and of a sweep: honest verdicts, every section and figure, safe and the same each time."""

from __future__ import annotations

import csv
import re
from dataclasses import replace
from functools import cache
from html.parser import HTMLParser
from typing import Any
from urllib.parse import unquote

import numpy as np
import pytest

from sftlab.analysis.statistics import NO_DIFFERENCE
from sftlab.config.leaves import flat
from sftlab.reporting.section import NOT_MEASURED
from sftlab.studies.knowledge.report import strategy_figures
from sftlab.studies.knowledge.report.buckets import (
    bucket_colour,
    bucket_name,
    column_name,
    mixture,
    step_words,
)
from sftlab.studies.knowledge.report.page import csv_links, render
from sftlab.studies.knowledge.report.summary import p_text, recommendation, summarise
from sftlab.studies.knowledge.report.view import View
from sftlab.studies.knowledge.results.choice import METRICS
from sftlab.studies.knowledge.results.rows import BEST
from sftlab.studies.knowledge.results.statistics import fill_tables
from sftlab.studies.knowledge.results.tables import OPTIONAL_TABLES, RESULT_TABLES, VARIANT_TABLES, Results
from sftlab.studies.knowledge.tracking.card import headline
from sftlab.studies.knowledge.tracking.runs import note
from tests.support.report_study import paper_study, without_layout
from tests.support.report_sweep import MadeUp, made_up_sweep

SECTIONS = (
    "summary",
    "strategies",
    "paper",
    "accuracy",
    "ladder",
    "training-set",
    "fates",
    "answers",
    "topics",
    "mastery-after",
    "kl",
    "mastery",
    "updates",
    "concentration",
    "distribution",
    "layer-ranges",
    "training",
    "time",
    "settings",
)
OPTIONAL = ("fates", "answers", "topics", "mastery-after", "updates", "layer-ranges", "training", "time")
BUCKETS = (0, 2, 4)
STUDY_FIGURES = (
    "size-test",
    "size-test_ood",
    *(f"ladder-{split}-{size}" for size in (240, 1920) for split in ("test", "test_ood")),
    "fates",
    "answers",
    "topics-test",
    "topics-test_ood",
    "mastery-after",
    "kl-size",
    "well-known",
    "kl-accuracy",
    "mastery",
    "updates-layers",
    "updates-gradients",
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
def sweep() -> Results:
    strategies = ("restore", "wise-ft", "l2-sp", "lora", "mixed", "restore:0-3")
    return made_up_sweep(strategies, ("0", "2", "4"), seeds=(0, 1), percents=(0.0, 20.0)).summarise_quickly()


@pytest.fixture(scope="module")
def view(sweep: Results) -> View:
    return View(sweep)


@pytest.fixture(scope="module")
def html(sweep: Results) -> str:
    return render(sweep)


@cache
def small(**changes: Any) -> Results:
    settings = {"buckets": ("2",), "sizes": (240,), "seeds": (0, 1), "percents": (0.0, 20.0)}
    return made_up_sweep(("restore", "l2-sp"), **{**settings, **changes}).summarise_quickly()


def test_every_section_is_there_in_order_and_everything_is_measured(html: str) -> None:
    page = Page(html)
    assert page.open == []
    # The made-up sweep has no answers by fact and no sizes of updates; the study of the other tests has.
    expected = [
        name for name in SECTIONS if name not in ("fates", "answers", "topics", "mastery-after", "updates")
    ]
    assert [found for found in page.ids if found in SECTIONS] == expected
    assert NOT_MEASURED not in html and "this study" not in html


def test_ids_are_unique_and_nothing_outside_is_referred_to(html: str) -> None:
    page = Page(html)
    assert len(set(page.ids)) == len(page.ids)
    assert all(a.startswith(("#", "data:text/csv")) for a in page.addresses)
    assert {a[1:] for a in page.addresses if a.startswith("#")} <= set(page.ids)
    without_data = re.sub(r'"data:text/csv[^"]*"', "", html)
    assert not re.search(r"https?:|//[a-z]|@import|@font-face|<link|<iframe|<img|<script", without_data)


def test_figures_of_the_paper_and_of_the_sweep_are_there(html: str) -> None:
    figures = {i.removesuffix("-figure_1") for i in Page(html).ids if i.endswith("-figure_1")}
    assert {"strategies-test", "strategies-test_ood", "size-test", "size-test_ood", "v2-size-test"} <= figures
    assert {"ladder-test-240", "ladder-test_ood-1920", "v1-ladder-test-1920"} <= figures
    assert {"kl-size", "well-known", "kl-accuracy", "times", "mastery", "concentration"} <= figures


def test_same_results_give_the_same_page(sweep: Results, html: str) -> None:
    assert render(sweep) == html


def test_each_csv_stands_on_the_page_once_and_holds_its_rows(sweep: Results, html: str) -> None:
    downloads = re.findall(r'download="([a-z_]+)\.csv"', html)
    assert sorted(downloads) == sorted(
        {*RESULT_TABLES, "cells", "divergence", "concentration", "distribution", "mastery", "undone"}
    )
    links = csv_links(sweep)
    address, count = links["groups"]
    rows = list(csv.DictReader(unquote(address.split(",", 1)[1]).splitlines()))
    assert len(rows) == count == len(sweep.groups)
    assert float(rows[0]["mean"]) == pytest.approx(sweep.groups[0].mean, rel=1e-5)
    cells = list(csv.DictReader(unquote(links["cells"][0].split(",", 1)[1]).splitlines()))
    assert {row["variant"] for row in cells} == {variant.name for variant in sweep.variants}


def test_csv_of_kl_has_the_accuracies_of_its_figure(sweep: Results) -> None:
    address, _ = csv_links(sweep)["divergence"]
    rows = list(csv.DictReader(unquote(address.split(",", 1)[1]).splitlines()))
    for variant in sweep.variants:
        shown = strategy_figures.moved(View(sweep).view(variant.name), variant.name, seeds=True)
        tuned = [r for r in rows if r["variant"] == variant.name and float(r["percent"]) == 0]
        if not shown:
            continue
        given = sorted((float(r["kl"]), float(r["test_accuracy_bucket_4"])) for r in tuned)
        np.testing.assert_allclose(given, sorted((point.kl, point.accuracy) for point in shown), rtol=1e-5)


def test_recommendation_says_what_to_do_and_how_sure_it_is(view: View) -> None:
    choice = view.recommended
    assert choice is not None
    text = recommendation(view, choice)
    assert text.startswith(f"Fine-tune on {choice.size:,} facts of bucket {choice.train_bucket}")
    assert "On test" in text
    sentences = " ".join(summarise(view).sentences)
    assert "95 % interval" in sentences and "after correction" in sentences
    assert "240 questions put to 2 models" in sentences


def test_a_difference_that_is_none_is_called_so() -> None:
    sweep = small()
    rows = [replace(row, verdict=NO_DIFFERENCE) for row in sweep.comparisons]
    view = View(replace(sweep, comparisons=rows))
    choice = view.recommended
    assert choice is not None and [r for r in rows if r.family == BEST]
    assert "no significant difference from the best plain fine-tuning" in recommendation(view, choice)
    better = View(replace(sweep, comparisons=[replace(row, verdict="better") for row in rows]))
    assert "better in domain and out of domain" in recommendation(better, choice)


def test_plain_fine_tuning_may_be_what_is_recommended() -> None:
    sweep = made_up_sweep(("divided",), ("2",), (240,), (0, 1), (0.0,)).summarise_quickly()
    view = View(sweep)
    assert view.recommended is not None
    text = recommendation(view, view.recommended)
    assert text == "Fine-tune on 240 facts of bucket 2, and restore nothing."
    assert Page(render(sweep)).open == []


def test_one_training_set_gets_no_verdict() -> None:
    sweep = small(seeds=(0,))
    view = View(sweep)
    assert view.recommended is not None
    assert "one training set, so that test gives no verdict" in recommendation(view, view.recommended)
    assert "for this training set (one training set; " in " ".join(summarise(view).sentences)
    with without_layout():
        assert "1 training set" in render(sweep)


def test_a_search_shows_what_it_tried_and_no_curve_of_each_trial() -> None:
    mixtures = [f"0:{share:g}+3:{1 - share:g}" for share in (0.2, 0.35, 0.5, 0.75)]
    one = [made_up_sweep(("restore",), (mixture,), (100,), (0,), (0.0, 20.0)) for mixture in mixtures]
    search = MadeUp()
    for number, trial in enumerate(one):
        name = f"restore learning_rate={number}e-4"
        search.variants.append(replace(trial.variants[0], name=name))
        search.given |= {(name, *key[1:]): answer for key, answer in trial.given.items()}
    sweep = search.summarise_quickly()
    view = View(sweep)
    assert view.searched and not view.ladders and not view.tuned_otherwise
    assert view.results.comparisons and view.recommended is not None
    text = render(sweep)
    assert "tried-figure_1" in text and Page(text).open == []
    plain = [r for r in view.family(BEST) if view.is_plain(r)]
    dev = {r.variant: r.dev_tuned for r in view.choices("group")}
    assert {r.against_variant for r in plain} <= {max(dev, key=lambda name: dev[name])}


@pytest.mark.parametrize("metric", list(METRICS))
def test_the_page_and_mlflow_say_which_metric_chose_and_name_the_same_model(metric: str) -> None:
    made = made_up_sweep(("restore", "wise-ft"), ("0", "2"), (240,), (0, 1), (0.0, 10.0, 20.0))
    sweep = fill_tables(Results("s", "m", metric=metric, variants=made.variants), made.answers)
    view, best = View(sweep), sweep.recommended()
    assert view.recommended is not None and best is not None
    assert best.choice == view.recommended and best.percent == view.recommended.percent
    words = METRICS[metric].words
    told = [*summarise(view).sentences, summarise(view).studied, note(sweep, 4, 12), headline(sweep, best)]
    assert sum(f"({words})" in text or f"is the {words} on dev" in text for text in told) == 4
    others = [other.words for name, other in METRICS.items() if name != metric]
    assert not [
        text for text in told for other in others if f"({other})" in text or f"is the {other}" in text
    ]


def test_hostile_names_are_escaped() -> None:
    plain = small()
    renamed = replace(
        plain,
        name=HOSTILE,
        model=HOSTILE,
        spec={HOSTILE: HOSTILE},
        times=[replace(row, stage=HOSTILE) for row in plain.times],
        variants=[
            replace(v, name=v.name + HOSTILE, strategy=v.strategy + HOSTILE, settings={HOSTILE: HOSTILE})
            for v in plain.variants
        ],
        groups=[replace(r, variant=r.variant + HOSTILE) for r in plain.groups],
        choice=[replace(r, variant=r.variant + HOSTILE, strategy=r.strategy + HOSTILE) for r in plain.choice],
        comparisons=[
            replace(r, variant=r.variant + HOSTILE, against_variant=r.against_variant + HOSTILE)
            for r in plain.comparisons
        ],
        reference=f"{plain.reference}{HOSTILE}",
    )
    text = render(renamed)
    page = Page(text)
    assert "script" not in page.tags and "<script" not in text
    assert page.open == [] and "&lt;script&gt;" in text


def test_empty_sweep_still_gives_a_page() -> None:
    text = render(Results("nothing", "no model"))
    ids = Page(text).ids
    assert [s for s in ids if s in SECTIONS] == [s for s in SECTIONS if s not in ("paper", *OPTIONAL)]
    assert text.count(NOT_MEASURED) == 8
    assert "Nothing can be recommended" in text


@pytest.mark.parametrize(
    "table", [name for name in VARIANT_TABLES if name not in {"cells", "accuracy", *OPTIONAL_TABLES}]
)
def test_each_table_of_the_studies_may_be_missing(table: str) -> None:
    plain = small(seeds=(0,))
    variants = [replace(v, **{table: ()}) for v in plain.variants]  # type: ignore[arg-type]
    with without_layout():
        assert Page(render(replace(plain, variants=variants))).open == []


@pytest.mark.parametrize("table", ["comparisons", "times"])
def test_each_table_of_the_sweep_may_be_missing(table: str) -> None:
    with without_layout():
        assert Page(render(replace(small(seeds=(0,)), **{table: ()}))).open == []


def test_sweep_without_plain_models_gives_a_page() -> None:
    sweep = made_up_sweep(("l2-sp", "lora"), ("2",), (240,), (0,)).summarise_quickly()
    assert sweep.reference is None
    assert Page(render(sweep)).open == []


def test_mixtures_have_a_name_a_colour_and_a_page() -> None:
    assert mixture("0:0.5+4:0.5") == {"0": 0.5, "4": 0.5}
    assert mixture("mixed") == mixture("3") == {}
    assert (
        bucket_name("0:0.25+4:0.75").replace("\N{NO-BREAK SPACE}", " ") == "25 % bucket 0 and 75 % bucket 4"
    )
    assert column_name("0:0.5+4:0.5").replace("\N{NO-BREAK SPACE}", " ") == "50 % 0 + 50 % 4"
    assert bucket_colour("0:1.0") == bucket_colour("0")
    assert bucket_colour("0:0.5+4:0.5") == "#6A6859"
    sweep = made_up_sweep(("restore",), ("2", "0:0.5+4:0.5"), (240,), (0, 1), (0.0, 20.0)).summarise_quickly()
    text = render(sweep)
    assert Page(text).open == [] and "50\N{NO-BREAK SPACE}% 0 + 50\N{NO-BREAK SPACE}% 4" in text


@pytest.fixture(scope="module")
def study() -> Results:
    return paper_study(buckets=BUCKETS)


@pytest.fixture(scope="module")
def study_html(study: Results) -> str:
    return render(study)


def test_a_study_has_the_same_page_with_all_its_figures(study_html: str) -> None:
    page = Page(study_html)
    assert page.open == [] and len(set(page.ids)) == len(page.ids)
    assert [s for s in page.ids if s in SECTIONS] == [
        s for s in SECTIONS if s not in ("layer-ranges", "time")
    ]
    figures = [found.removesuffix("-figure_1") for found in page.ids if found.endswith("-figure_1")]
    assert figures == list(STUDY_FIGURES)
    assert NOT_MEASURED not in study_html and "this sweep" not in study_html.lower()


def test_a_study_offers_all_its_tables_in_full_precision(study: Results, study_html: str) -> None:
    links = csv_links(study)
    assert set(links) == {*VARIANT_TABLES, *RESULT_TABLES} - {"times"} - OPTIONAL_TABLES
    downloads = re.findall(r'download="([a-z_]+)\.csv"', study_html)
    assert sorted(downloads) == sorted(links)
    address, count = links["accuracy"]
    rows = list(csv.DictReader(unquote(address.split(",", 1)[1]).splitlines()))
    (variant,) = study.variants
    assert len(rows) == count == len(variant.accuracy)
    first = variant.accuracy[0]
    assert (rows[0]["cell"], rows[0]["percent"], float(rows[0]["accuracy"])) == ("base", "", first.accuracy)


def test_study_page_shows_deviations_of_several_seeds() -> None:
    with without_layout():
        assert re.search(r"\d ± \d", render(paper_study(buckets=(2,), sizes=(240,), seeds=(0, 1))))


def test_settings_are_listed_by_their_path() -> None:
    tree = {"a": {"b": 1, "c": {"d": [1, "x"]}}, "e": "text", "f": {}}
    assert flat(tree) == [("a.b", "1"), ("a.c.d", '[1, "x"]'), ("e", "text"), ("f", "{}")]


def test_words() -> None:
    assert [p_text(p) for p in (0.00001, 0.0012, 0.5)] == ["p < 0.0001", "p = 0.0012", "p = 0.50"]
    assert step_words("restore", 10.0).replace("\N{NO-BREAK SPACE}", " ") == "restore 10 % of the weights"
    assert step_words("own", 10.0).replace("\N{NO-BREAK SPACE}", " ") == "apply own at 10 %"
    assert (
        step_words("restore", 10.0, "l1").replace("\N{NO-BREAK SPACE}", " ")
        == "undo 10 % of the absolute change"
    )
    assert step_words("restore", 0.0) == ""
