"""The page of a sweep: the recommendation first, honest verdicts, the paper's tables with marks, safe and stable."""

from __future__ import annotations

import csv
import re
from dataclasses import replace
from functools import cache
from typing import Any
from urllib.parse import unquote

import pytest
from report_study import paper_study
from report_sweep import MadeUp, made_up_sweep
from test_report_page import HOSTILE, Page

from sftlab.analysis.results import TABLES, StudyResults
from sftlab.analysis.statistics import NO_DIFFERENCE
from sftlab.analysis.sweep import BEST, CHOSEN, SWEEP_TABLES, SweepResults
from sftlab.report import published, sweep_beside, sweep_strategies
from sftlab.report.findings import HELPS, all_findings
from sftlab.report.lookup import Group, View
from sftlab.report.page import render
from sftlab.report.svg import bucket_colour
from sftlab.report.sweep_beside import direction
from sftlab.report.sweep_page import render_sweep, sweep_csv_links
from sftlab.report.sweep_sections import NOT_MEASURED, correlation
from sftlab.report.sweep_summary import p_text, recommendation, sharper, summarise
from sftlab.report.sweep_view import SweepView, paper_size, step_words
from sftlab.report.tables import Row, Table
from sftlab.report.wording import bucket_name, column_name, mixture

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
RANGES = tuple(f"restore:{first}-{first + 3}" for first in range(0, 32, 4))


@pytest.fixture(scope="module")
def sweep() -> SweepResults:
    strategies = ("restore", "wise-ft", "l2-sp", "lora", "mixed", "restore:0-3")
    return made_up_sweep(strategies, seeds=(0, 1), percents=(0.0, 5.0, 20.0, 40.0, 60.0)).summarise()


@pytest.fixture(scope="module")
def view(sweep: SweepResults) -> SweepView:
    return SweepView(sweep)


@pytest.fixture(scope="module")
def html(sweep: SweepResults) -> str:
    return render_sweep(sweep)


@cache
def small(**changes: Any) -> SweepResults:
    settings = {"buckets": ("2",), "sizes": (240,), "seeds": (0, 1), "percents": (0.0, 20.0)}
    return made_up_sweep(("restore", "l2-sp"), **{**settings, **changes}).summarise()


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
    sweep = made_up_sweep(("divided",), ("2",), (240,), (0, 1), (0.0,)).summarise()
    view = SweepView(sweep)
    assert view.recommended is not None
    text = recommendation(view, view.recommended)
    assert text == (
        "Fine-tune on 240 facts of bucket 2, and restore nothing. No strategy had a better dev score than plain "
        "fine-tuning."
    )
    assert Page(render_sweep(sweep)).open == []


def test_table_4_has_the_papers_rows_columns_and_numbers(view: SweepView) -> None:
    table = found(sweep_beside.ladder(view, "test"))
    assert table.columns == ["0", "1", "2", "3", "4"]
    block = [row for row in table.rows if row.entries][:8]
    assert [row.heading.split("\N{NO-BREAK SPACE}")[0] for row in block] == [
        "0",
        "1",
        "3",
        "5",
        "10",
        "20",
        "40",
        "60",
    ]
    for row, at in zip(block, (0.0, 1.0, 3.0, 5.0, 10.0, 20.0, 40.0, 60.0), strict=True):
        paper = [100 * value for value in published.ladder("test", 240)[at]]
        assert numbers(row) == pytest.approx(paper, abs=0.051)
        measured = at in (0.0, 5.0, 20.0, 40.0, 60.0)
        assert all((entry.text != "–") == measured for entry in row.entries)
    assert [entry.mark for entry in block[-1].entries] == ["agrees"] * 5  # the collapse at 60 %
    assert all(entry.mark == "" for entry in block[0].entries)


def test_marks_compare_directions() -> None:
    assert direction(0.01, 0.03, 0.2) == direction(-0.03, -0.01, -0.2) == "agrees"
    assert direction(0.01, 0.03, -0.2) == "differs"
    assert direction(-0.01, 0.03, 0.2) == "open"
    assert direction(0.01, 0.03, None) == direction(0.01, 0.03, 0.0) == ""


def test_table_2_and_6_hold_the_published_numbers(view: SweepView) -> None:
    table = found(sweep_beside.by_test_bucket(view))
    assert len(table.columns) == 12 and len(table.rows) == 5
    assert table.rows[0].entries[0].below == ["1.8 ± 0.2"] and table.rows[4].entries[11].below == [
        "50.2 ± 1.8"
    ]
    table = found(sweep_beside.ladder(view, "train_set"))
    assert [row.entries[1].below for row in table.rows if row.entries][:2] == [["61.3"], ["62.9"]]


def test_more_data_and_collapse_are_marked_by_bucket(view: SweepView) -> None:
    table = found(sweep_beside.more_data(view))
    assert numbers(table.rows[0]) == pytest.approx([-10.37, -5.53, -0.52, -1.42, 1.25], abs=0.051)
    assert table.rows[0].entries[0].mark == "agrees"
    table = found(sweep_beside.collapse(view))
    assert [e.below[0] for e in table.rows[0].entries] == [
        "from 60\N{NO-BREAK SPACE}%",
        "from 60\N{NO-BREAK SPACE}%",
        "from 60\N{NO-BREAK SPACE}%",
        "from 40\N{NO-BREAK SPACE}%",
        "from 40\N{NO-BREAK SPACE}%",
    ]
    assert {e.mark for row in table.rows for e in row.entries} == {"agrees"}


def test_tables_3_9_and_10_agree_with_themselves(view: SweepView) -> None:
    for table in (sweep_beside.concentration(view), sweep_beside.layers(view), sweep_beside.modules(view)):
        entries = [entry for row in found(table).rows for entry in row.entries]
        assert entries and "differs" not in {entry.mark for entry in entries}
        assert all(entry.below for entry in entries)
    shares = [row.entries[0] for row in found(sweep_beside.layers(view)).rows]
    assert (shares[0].text, shares[0].below, shares[0].mark) == ("1.21", ["1.21"], "agrees")


def test_table_7_has_the_papers_strategies_then_the_others(view: SweepView) -> None:
    table = found(sweep_strategies.table_7(view))
    assert [row.heading for row in table.rows][:5] == list(published.published()["strategies"]["rows"])
    assert {row.heading for row in table.rows[5:]} == {"wise-ft", "l2-sp"}
    assert table.rows[0].entries[0].text == "–" and table.rows[0].entries[0].below == ["53.8"]
    assert all(row.entries[0].text != "–" for row in table.rows[1:])


def test_table_11_lines_ranges_up_by_depth() -> None:
    sweep = made_up_sweep(("restore", *RANGES), ("0", "3"), (240,), (0,), (0.0, 20.0)).summarise()
    table = found(sweep_strategies.table_11(SweepView(sweep)))
    assert table.columns == ["0–3", "4–7", "8–11", "12–15", "16–19", "20–23", "24–27", "28–31"]
    paper = published.published()["layer_restoration"]["rows"]
    assert numbers(table.rows[0]) == pytest.approx(paper[0], abs=0.051)
    assert numbers(table.rows[1]) == pytest.approx(paper[3], abs=0.051)
    assert table.rows[1].entries[0].mark == "agrees"  # 59 % falls to 3 %


def test_published_sizes_stand_beside_equal_or_outermost_ones() -> None:
    assert [paper_size(n, [60, 240, 1920]) for n in (60, 240, 1920)] == [None, 240, 1920]
    assert [paper_size(n, [25, 50, 100]) for n in (25, 50, 100)] == [240, None, 1920]
    assert paper_size(25, [25]) == 1920


def test_plain_restoration_stands_in_table_7_and_not_its_ablations() -> None:
    sweep = made_up_sweep(("restore", "restore:0-3"), ("2",), (240,), (0, 1), (0.0, 20.0)).summarise()
    ablation = [replace(r, dev=0.99) if r.variant == "restore:0-3" else r for r in sweep.choice]
    view = SweepView(replace(sweep, choice=ablation))
    row = found(sweep_strategies.table_7(view)).rows[4]
    plain = view.score("restore", Group("2", 240), view.choices("variant")[0].percent, "test")
    assert plain is not None
    assert (row.heading, row.entries[0].text) == ("Parameter Restoration", sweep_beside.accuracy_text(plain))


def test_whether_restoring_helps_is_decided_by_the_tests(view: SweepView) -> None:
    assert view.main is not None
    finding = next(f for f in all_findings(view.main) if f.question == HELPS)
    rows = [r for r in view.family(CHOSEN) if r.variant == "restore" and r.split == "test"]
    better = sum(r.verdict == "better" for r in rows)
    assert better > 0
    told = sharper(view, finding)
    assert told.agrees is True and f"{better} are significantly better, 0 worse" in told.here
    none = replace(view.results, comparisons=[replace(r, verdict=NO_DIFFERENCE) for r in rows])
    assert sharper(SweepView(none), finding).agrees is None
    other = next(f for f in all_findings(view.main) if f.question != HELPS)
    assert sharper(view, other) is other


def test_a_search_shows_what_it_tried_and_no_curve_of_each_trial() -> None:
    mixtures = [f"0:{share:g}+3:{1 - share:g}" for share in (0.2, 0.35, 0.5, 0.75)]
    one = [made_up_sweep(("restore",), (mixture,), (100,), (0,), (0.0, 20.0)) for mixture in mixtures]
    search = MadeUp()
    for number, trial in enumerate(one):
        name = f"restore learning_rate={number}e-4"
        search.variants.append(replace(trial.variants[0], name=name))
        search.given |= {(name, *key[1:]): answer for key, answer in trial.given.items()}
    sweep = search.summarise()
    view = SweepView(sweep)
    assert view.searched and not view.ladders and not view.tuned_otherwise
    assert view.results.comparisons and view.recommended is not None
    text = render_sweep(sweep)
    assert "tried-figure_1" in text and Page(text).open == []
    plain = [r for r in view.family(BEST) if view.is_plain(r)]
    dev = {r.variant: r.dev_tuned for r in view.choices("group")}
    assert {r.against_variant for r in plain} <= {max(dev, key=lambda name: dev[name])}


def test_strategies_are_ranked_by_dev(view: SweepView) -> None:
    rows = sweep_strategies.ranked(view)
    assert [row.dev for row in rows] == sorted((row.dev for row in rows), reverse=True)
    table = found(sweep_strategies.best(view))
    assert [row.heading for row in table.rows] == [row.strategy for row in rows]
    text = " ".join(line for row in table.rows for entry in row.entries for line in entry.below)
    assert "questions × 2 sets" in text
    assert "no significant difference" in text or "better" in text


def test_correlation_is_over_groups_and_scipys(view: SweepView) -> None:
    from scipy import stats

    from sftlab.report.sweep_figures import Moved, moved

    assert view.main is not None
    groups = moved(view.main, "restore", seeds=False)
    assert len(groups) == 10 and len(moved(view.main, "restore", seeds=True)) == 20
    table = found(correlation(groups))
    expected = stats.pearsonr([g.kl for g in groups], [g.accuracy for g in groups]).statistic
    assert table.rows[0].entries[0].text == f"{expected:.2f}".replace("-", "\N{MINUS SIGN}")
    same = [Moved("restore", g.group, 1.0, g.accuracy) for g in groups]
    assert correlation(same) is None and correlation(groups[:3]) is None


def test_hostile_names_are_escaped() -> None:
    plain = small()
    renamed = replace(
        plain,
        name=HOSTILE,
        model=HOSTILE,
        metric=HOSTILE,
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
    assert Page(render_sweep(replace(plain, variants=variants))).open == []


@pytest.mark.parametrize("table", ["comparisons", "times"])
def test_each_table_of_the_sweep_may_be_missing(table: str) -> None:
    assert Page(render_sweep(replace(small(seeds=(0,)), **{table: ()}))).open == []


def test_sweep_without_plain_models_gives_a_page() -> None:
    sweep = made_up_sweep(("l2-sp", "lora"), ("2",), (240,), (0,)).summarise()
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
    sweep = made_up_sweep(("restore",), ("2", "0:0.5+4:0.5"), (240,), (0, 1), (0.0, 20.0)).summarise()
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


def numbers(row: Row) -> list[float]:
    """The published numbers of a row."""
    return [float(entry.below[0].replace("\N{MINUS SIGN}", "-")) for entry in row.entries]


def found(table: Table | None) -> Table:
    assert table is not None
    return table


def test_study_results_are_not_changed_by_the_view(sweep: SweepResults) -> None:
    before: StudyResults = sweep.variants[0].results
    SweepView(sweep).view("restore")
    assert sweep.variants[0].results is before
