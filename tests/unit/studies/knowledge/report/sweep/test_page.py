"""The page of a sweep: the recommendation first, honest verdicts, every section and figure, safe and stable."""

from __future__ import annotations

import csv
import re
from dataclasses import replace
from functools import cache
from typing import Any
from urllib.parse import unquote

import numpy as np
import pytest

from sftlab.analysis.statistics import NO_DIFFERENCE
from sftlab.studies.knowledge.report.buckets import (
    bucket_colour,
    bucket_name,
    column_name,
    mixture,
    step_words,
)
from sftlab.studies.knowledge.report.lookup import View
from sftlab.studies.knowledge.report.page import render
from sftlab.studies.knowledge.report.sweep import figures as sweep_figures
from sftlab.studies.knowledge.report.sweep.page import render_sweep, sweep_csv_links
from sftlab.studies.knowledge.report.sweep.sections import NOT_MEASURED
from sftlab.studies.knowledge.report.sweep.summary import p_text, recommendation, summarise
from sftlab.studies.knowledge.report.sweep.view import SweepView
from sftlab.studies.knowledge.results.choice import METRICS
from sftlab.studies.knowledge.results.sweep_statistics import summarise_sweep
from sftlab.studies.knowledge.results.sweep_tables import BEST, SWEEP_TABLES, SweepResults
from sftlab.studies.knowledge.results.tables import TABLES
from sftlab.studies.knowledge.tracking.card import headline
from sftlab.studies.knowledge.tracking.sweep import note, recommended_model
from tests.support.report_study import paper_study, without_layout
from tests.support.report_sweep import MadeUp, made_up_sweep
from tests.unit.studies.knowledge.report.test_page import HOSTILE, Page

SECTIONS = (
    "summary",
    "strategies",
    "paper",
    "accuracy",
    "ladder",
    "training-set",
    "kl",
    "mastery",
    "concentration",
    "distribution",
    "layer-ranges",
    "time",
    "settings",
)


@pytest.fixture(scope="module")
def sweep() -> SweepResults:
    strategies = ("restore", "wise-ft", "l2-sp", "lora", "mixed", "restore:0-3")
    return made_up_sweep(strategies, ("0", "2", "4"), seeds=(0, 1), percents=(0.0, 20.0)).summarise_quickly()


@pytest.fixture(scope="module")
def view(sweep: SweepResults) -> SweepView:
    return SweepView(sweep)


@pytest.fixture(scope="module")
def html(sweep: SweepResults) -> str:
    return render_sweep(sweep)


@cache
def small(**changes: Any) -> SweepResults:
    settings = {"buckets": ("2",), "sizes": (240,), "seeds": (0, 1), "percents": (0.0, 20.0)}
    return made_up_sweep(("restore", "l2-sp"), **{**settings, **changes}).summarise_quickly()


def test_every_section_is_there_in_order_and_everything_is_measured(html: str) -> None:
    page = Page(html)
    assert page.open == []
    assert [found for found in page.ids if found in SECTIONS] == list(SECTIONS)
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


def test_same_results_give_the_same_page(sweep: SweepResults, html: str) -> None:
    assert render_sweep(sweep) == html


def test_each_csv_stands_on_the_page_once_and_holds_its_rows(sweep: SweepResults, html: str) -> None:
    downloads = re.findall(r'download="([a-z]+)\.csv"', html)
    assert sorted(downloads) == sorted(
        {*SWEEP_TABLES, *("cells", "divergence", "concentration"), "distribution", "mastery"}
    )
    links = sweep_csv_links(sweep)
    address, count = links["groups"]
    rows = list(csv.DictReader(unquote(address.split(",", 1)[1]).splitlines()))
    assert len(rows) == count == len(sweep.groups)
    assert float(rows[0]["mean"]) == pytest.approx(sweep.groups[0].mean, rel=1e-5)
    cells = list(csv.DictReader(unquote(links["cells"][0].split(",", 1)[1]).splitlines()))
    assert {row["variant"] for row in cells} == {variant.name for variant in sweep.variants}


def test_csv_of_kl_has_the_accuracies_of_its_figure(sweep: SweepResults) -> None:
    address, _ = sweep_csv_links(sweep)["divergence"]
    rows = list(csv.DictReader(unquote(address.split(",", 1)[1]).splitlines()))
    for variant in sweep.variants:
        shown = sweep_figures.moved(SweepView(sweep).view(variant.name), variant.name, seeds=True)
        tuned = [r for r in rows if r["variant"] == variant.name and float(r["percent"]) == 0]
        if not shown:
            continue
        given = sorted((float(r["kl"]), float(r["test_accuracy_bucket_4"])) for r in tuned)
        np.testing.assert_allclose(given, sorted((point.kl, point.accuracy) for point in shown), rtol=1e-5)


def test_recommendation_says_what_to_do_and_how_sure_it_is(view: SweepView) -> None:
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
    view = SweepView(replace(sweep, comparisons=rows))
    choice = view.recommended
    assert choice is not None and [r for r in rows if r.family == BEST]
    assert "no significant difference from the best plain fine-tuning" in recommendation(view, choice)
    better = SweepView(replace(sweep, comparisons=[replace(row, verdict="better") for row in rows]))
    assert "better in domain and out of domain" in recommendation(better, choice)


def test_plain_fine_tuning_may_be_what_is_recommended() -> None:
    sweep = made_up_sweep(("divided",), ("2",), (240,), (0, 1), (0.0,)).summarise_quickly()
    view = SweepView(sweep)
    assert view.recommended is not None
    text = recommendation(view, view.recommended)
    assert text == (
        "Fine-tune on 240 facts of bucket 2, and restore nothing. No strategy had a better dev score than plain "
        "fine-tuning."
    )
    assert Page(render_sweep(sweep)).open == []


def test_a_small_p_whose_interval_holds_0_is_told_so() -> None:
    sweep = small()
    unsure = [replace(r, p_corrected=0.01, low=-0.01, verdict=NO_DIFFERENCE) for r in sweep.comparisons]
    text = " ".join(summarise(SweepView(replace(sweep, comparisons=unsure))).sentences)
    assert "no significant difference (p = 0.01 after correction, but its interval holds 0; " in text
    plain = [replace(r, p_corrected=0.2) for r in unsure]
    assert "holds 0" not in " ".join(summarise(SweepView(replace(sweep, comparisons=plain))).sentences)


def test_a_search_shows_what_it_tried_and_no_curve_of_each_trial() -> None:
    mixtures = [f"0:{share:g}+3:{1 - share:g}" for share in (0.2, 0.35, 0.5, 0.75)]
    one = [made_up_sweep(("restore",), (mixture,), (100,), (0,), (0.0, 20.0)) for mixture in mixtures]
    search = MadeUp()
    for number, trial in enumerate(one):
        name = f"restore learning_rate={number}e-4"
        search.variants.append(replace(trial.variants[0], name=name))
        search.given |= {(name, *key[1:]): answer for key, answer in trial.given.items()}
    sweep = search.summarise_quickly()
    view = SweepView(sweep)
    assert view.searched and not view.ladders and not view.tuned_otherwise
    assert view.results.comparisons and view.recommended is not None
    text = render_sweep(sweep)
    assert "tried-figure_1" in text and Page(text).open == []
    plain = [r for r in view.family(BEST) if view.is_plain(r)]
    dev = {r.variant: r.dev_tuned for r in view.choices("group")}
    assert {r.against_variant for r in plain} <= {max(dev, key=lambda name: dev[name])}


@pytest.mark.parametrize("metric", list(METRICS))
def test_the_page_and_mlflow_say_which_metric_chose_and_name_the_same_model(metric: str) -> None:
    made = made_up_sweep(("restore", "wise-ft"), ("0", "2"), (240,), (0, 1), (0.0, 10.0, 20.0))
    sweep = summarise_sweep("s", "m", {}, metric, made.variants, made.answers)
    view, best = SweepView(sweep), recommended_model(sweep)
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
    text = render_sweep(renamed)
    page = Page(text)
    assert "script" not in page.tags and "<script" not in text
    assert page.open == [] and "&lt;script&gt;" in text


def test_empty_sweep_still_gives_a_page() -> None:
    text = render_sweep(SweepResults("nothing", "no model"))
    ids = Page(text).ids
    assert [found for found in ids if found in SECTIONS] == [s for s in SECTIONS if s != "paper"]
    assert text.count(NOT_MEASURED) == 10
    assert "Nothing can be recommended" in text


@pytest.mark.parametrize("table", [name for name in TABLES if name not in ("cells", "accuracy")])
def test_each_table_of_the_studies_may_be_missing(table: str) -> None:
    plain = small(seeds=(0,))
    variants = [replace(v, results=replace(v.results, **{table: ()})) for v in plain.variants]
    with without_layout():
        assert Page(render_sweep(replace(plain, variants=variants))).open == []


@pytest.mark.parametrize("table", ["comparisons", "times"])
def test_each_table_of_the_sweep_may_be_missing(table: str) -> None:
    with without_layout():
        assert Page(render_sweep(replace(small(seeds=(0,)), **{table: ()}))).open == []


def test_sweep_without_plain_models_gives_a_page() -> None:
    sweep = made_up_sweep(("l2-sp", "lora"), ("2",), (240,), (0,)).summarise_quickly()
    assert sweep.reference is None
    assert Page(render_sweep(sweep)).open == []


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
    text = render_sweep(sweep)
    assert Page(text).open == [] and "50\N{NO-BREAK SPACE}% 0 + 50\N{NO-BREAK SPACE}% 4" in text
    assert Page(render(sweep.variants[0].results)).open == []


def test_study_page_shows_deviations_of_several_seeds_and_none_of_one() -> None:
    several = paper_study(buckets=(2,), sizes=(240,), seeds=(0, 1))
    assert re.search(r"\d ± \d", render(several))
    assert "±" not in render(paper_study(buckets=(2,), sizes=(240,)))
    assert View(several).accuracy(next(iter(View(several).groups)), 0.0, "test").deviation is not None  # type: ignore[union-attr]


def test_words() -> None:
    assert [p_text(p) for p in (0.00001, 0.0012, 0.5)] == ["p < 0.0001", "p = 0.0012", "p = 0.50"]
    assert step_words("restore", 10.0).replace("\N{NO-BREAK SPACE}", " ") == "restore 10 % of the weights"
    assert step_words("own", 10.0).replace("\N{NO-BREAK SPACE}", " ") == "apply own at 10 %"
    assert step_words("restore", 0.0) == ""
