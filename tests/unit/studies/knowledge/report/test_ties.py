"""Where dev makes no choice the page says so; what a page says of ids, of the ladder's strategy and of its origin."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import pytest

from sftlab.studies.knowledge.report.findings import collapse
from sftlab.studies.knowledge.report.lookup import View
from sftlab.studies.knowledge.report.origin import Origin
from sftlab.studies.knowledge.report.page import render
from sftlab.studies.knowledge.report.summary import summarise
from sftlab.studies.knowledge.report.sweep import beside as sweep_beside
from sftlab.studies.knowledge.report.sweep.page import render_sweep
from sftlab.studies.knowledge.report.sweep.strategies import ranked
from sftlab.studies.knowledge.report.sweep.summary import summarise as summarise_sweep
from sftlab.studies.knowledge.report.sweep.view import SweepView
from sftlab.studies.knowledge.report.ties import sweep_tie
from sftlab.studies.knowledge.results.choice import choose
from sftlab.studies.knowledge.results.sweep_tables import SweepResults
from sftlab.studies.knowledge.results.tables import ChoiceRow, StudyResults
from sftlab.studies.knowledge.results.ties import Setting, study_ties, sweep_ties
from tests.support.report_study import paper_study
from tests.support.report_sweep import made_up_sweep


def flat_study(scores: Mapping[tuple[str, float], float]) -> StudyResults:
    """A study of two cells whose dev accuracies are these, and 0.1 where they name none."""
    study = paper_study(buckets=(1, 2), sizes=(240,), paired=True)
    rows = [
        replace(r, accuracy=scores.get((r.cell, r.percent or 0.0), 0.1)) if r.split.startswith("dev") else r
        for r in study.accuracy
    ]
    return replace(study, accuracy=rows, choice=choose(rows))


def recommended(study: StudyResults) -> ChoiceRow:
    return next(row for row in study.choice if row.scope == "recommended")


ONE, TWO = "bucket1-n240-s0", "bucket2-n240-s0"


def test_one_best_model_on_dev_is_recommended_without_a_word_about_ties() -> None:
    study = flat_study({(TWO, 10.0): 0.3})
    assert study_ties(study.accuracy, recommended(study)) == []
    assert "no choice" not in render(study) and "chosen on dev" in render(study)


def test_models_that_tie_on_dev_are_named_and_none_is_called_chosen() -> None:
    study = flat_study({(TWO, 10.0): 0.3, (TWO, 20.0): 0.3, (ONE, 5.0): 0.3})
    assert (recommended(study).cell, recommended(study).percent) == (ONE, 5.0)
    assert study_ties(study.accuracy, recommended(study)) == [(TWO, 10.0), (TWO, 20.0)]
    summary = summarise(View(study))
    text = summary.recommendation.replace("\N{NO-BREAK SPACE}", " ")
    assert text.startswith(
        "Dev makes no choice here: 3 models tie at 30.0 %. The first of them: fine-tune on 240"
    )
    told = " ".join(summary.sentences).replace("\N{NO-BREAK SPACE}", " ")
    assert f"As good on dev as the first of them: {TWO} at 10 %; {TWO} at 20 %." in told
    assert "one of the best of 2 cells" in told
    assert summary.figures[-1].change == "tied on dev"


def test_a_sum_in_another_order_is_a_tie_too() -> None:
    study = flat_study({(TWO, 10.0): 0.3, (TWO, 20.0): 0.1 + 0.2})
    assert recommended(study).percent == 20.0  # by the last bit
    assert study_ties(study.accuracy, recommended(study)) == [(TWO, 10.0)]


def test_nothing_better_than_0_percent_is_said_with_those_that_are_as_good() -> None:
    study = flat_study({(ONE, 0.0): 0.3, (ONE, 5.0): 0.3})
    summary = summarise(View(study))
    text = " ".join([summary.recommendation, *summary.sentences]).replace("\N{NO-BREAK SPACE}", " ")
    assert "restore nothing. On dev no percentage was better than 0 %" in text
    assert "2 models tie at 30.0 %" in text and "5 % in place of 0 %." in text


def flat_sweep(
    scores: Mapping[tuple[str, float], float], strategies: tuple[str, ...] = ("restore", "wise-ft")
) -> SweepResults:
    """A sweep of one group a strategy, whose mean dev scores are these (by variant), and 0.1 elsewhere."""
    from sftlab.studies.knowledge.results.sweep_statistics import choices, groups_of

    sweep = made_up_sweep(strategies, ("2",), (240,), (0, 1), (0.0, 5.0, 20.0)).summarise_quickly()
    rows = [
        replace(r, mean=scores.get((r.variant, r.percent), 0.1))
        if r.split.startswith("dev") and r.bucket is None
        else r
        for r in sweep.groups
    ]
    groups = [group for variant in sweep.variants for group in groups_of(variant)]
    return replace(sweep, groups=rows, choice=choices(groups, rows))


def test_settings_of_a_sweep_that_tie_are_named() -> None:
    sweep = flat_sweep({("restore", 5.0): 0.3, ("wise-ft", 20.0): 0.3})
    view = SweepView(sweep)
    assert view.recommended is not None and view.recommended.percent == 5.0
    assert sweep_ties(sweep, view.recommended) == [Setting("wise-ft", "2", 240, 20.0)]
    summary = summarise_sweep(view)
    text = summary.recommendation.replace("\N{NO-BREAK SPACE}", " ")
    assert text.startswith(
        "Dev makes no choice here: 2 settings tie at 30.0 %. The first of them: fine-tune on"
    )
    told = " ".join(summary.sentences).replace("\N{NO-BREAK SPACE}", " ")
    assert "one of the best of 6 settings" in told
    assert "As good on dev as the first of them: wise-ft, bucket 2, 240 facts, 20 %." in told


def test_the_tuned_model_that_strategies_share_is_no_tie_with_itself() -> None:
    sweep = flat_sweep({("restore", 0.0): 0.3, ("wise-ft", 0.0): 0.3})
    chosen = SweepView(sweep).recommended
    assert chosen is not None and chosen.percent == 0.0 and sweep_tie(sweep, chosen) is None
    told = summarise_sweep(SweepView(sweep)).recommendation
    assert "On dev no percentage was better than 0 %" in told
    other = [
        replace(v, results=replace(v.results, spec={"sft": {"epochs": 2}})) if v.name == "wise-ft" else v
        for v in sweep.variants
    ]
    tied = sweep_ties(replace(sweep, variants=other), chosen)
    assert tied == [Setting("wise-ft", "2", 240, 0.0)]


def test_percentages_that_some_seeds_lack_do_not_tie() -> None:
    sweep = flat_sweep({("restore", 5.0): 0.3, ("restore", 20.0): 0.3})
    chosen = SweepView(sweep).recommended
    assert chosen is not None and len(sweep_ties(sweep, chosen)) == 1
    one_seed = [replace(r, seeds=1) if r.percent == 20.0 else r for r in sweep.groups]
    assert sweep_ties(replace(sweep, groups=one_seed), chosen) == []


def test_ties_are_those_of_the_sweep_s_metric() -> None:
    """In domain both settings have 0.3, out of domain the second has more."""
    sweep = flat_sweep({("restore", 5.0): 0.3, ("wise-ft", 20.0): 0.3})
    uneven = [
        replace(r, mean=0.4)
        if (r.variant, r.percent, r.split, r.bucket) == ("wise-ft", 20.0, "dev_ood", None)
        else r
        for r in sweep.groups
    ]
    sweep = replace(sweep, groups=uneven, metric="dev_in_domain")
    chosen = SweepView(sweep).recommended
    assert chosen is not None and len(sweep_ties(sweep, chosen)) == 1
    assert sweep_ties(replace(sweep, metric="dev"), chosen) == []


def test_groups_of_fewer_seeds_do_not_tie_and_the_page_names_the_rule() -> None:
    sweep = flat_sweep({("restore", 5.0): 0.3, ("wise-ft", 20.0): 0.3})
    assert SweepView(sweep).competing_rule == ""
    few = [replace(r, seeds=1) if r.variant == "wise-ft" else r for r in sweep.groups]
    rows = [
        replace(r, seeds=1, dev=0.9) if r.variant == "wise-ft" and r.scope != "recommended" else r
        for r in sweep.choice
    ]
    view = SweepView(replace(sweep, groups=few, choice=rows))
    assert view.recommended is not None and sweep_ties(view.results, view.recommended) == []
    assert "1 group has fewer than 2" in view.competing_rule
    told = " ".join(summarise_sweep(view).sentences)
    assert view.competing_rule in told and "the best of 3 settings in 1 group of training sets" in told
    assert [row.strategy for row in ranked(view)] == ["restore", "wise-ft"]  # not the lucky one first


def test_collapse_is_not_judged_where_the_tuned_models_answer_nothing() -> None:
    sweep = made_up_sweep(("restore",), ("2", "3"), (240,), (0,), (0.0, 20.0, 60.0)).summarise_quickly()
    rows = [replace(r, mean=0.0) if r.train_bucket == "2" and r.split == "test" else r for r in sweep.groups]
    table = sweep_beside.collapse(SweepView(replace(sweep, groups=rows)))
    assert table is not None
    silent, usual = table.rows[0].entries
    assert (silent.text, silent.mark) == ("n/a", "") and silent.below
    assert usual.mark in ("agrees", "differs")
    study = paper_study(buckets=(2,), sizes=(240,))
    nothing = [replace(r, accuracy=0.0) if r.split == "test" else r for r in study.accuracy]
    found = collapse(View(replace(study, accuracy=nothing)))
    assert found is not None and found.agrees is None
    usual_finding = collapse(View(study))
    assert usual_finding is not None and usual_finding.agrees is True


@pytest.mark.parametrize(("method", "word"), [("wise-ft", "wise-ft"), ("dare", "dare")])
def test_a_study_of_another_strategy_is_told_in_its_own_words(method: str, word: str) -> None:
    study = paper_study(buckets=(2,), sizes=(240,), paired=True)
    spec = {**study.spec, "restore": {**study.spec["restore"], "method": method}}
    summary = summarise(View(replace(study, spec=spec)))
    told = [summary.recommendation, summary.studied, *summary.sentences]
    told += [part for figure in summary.figures for part in (figure.label, figure.change)]
    told += [] if summary.table is None else [row.heading for row in summary.table.rows]
    assert not [text for text in told if "restor" in text.lower()]
    assert any(f"{word} at" in text for text in told) and f"Percentage of {word}" in told


def test_pages_name_the_ids_that_materialize_takes_and_no_host() -> None:
    study = paper_study(buckets=(2,), sizes=(240,))
    best = recommended(study)
    ids = {("", str(best.cell), p): f"{p:02.0f}" + "ab" * 31 for p in (0.0, 1.0, best.percent)}
    made = {"time": "2026-01-02T03:04:05+00:00", "cores": "2", "host": "secret-name", "commit": "c0ffee"}
    page = render(study, Origin(ids, made)).replace("\N{NO-BREAK SPACE}", " ")
    assert f"sftlab materialize {best.percent:02.0f}" + "ab" * 5 + "<" in page
    assert "1 %: 01" + "ab" * 5 + "<" in page and "ab" * 6 not in page
    assert "secret-name" not in page and "2026-01-02T03:04:05+00:00" in page and "c0ffee" in page

    sweep = made_up_sweep(("restore",), ("2",), (240,), (0, 1), (0.0, 20.0)).summarise_quickly()
    chosen = SweepView(sweep).recommended
    assert chosen is not None
    by_model = {
        ("restore", f"bucket2-n240-s{s}", p): f"{s}{p:02.0f}" + "cd" * 30 for s in (0, 1) for p in (0.0, 20.0)
    }
    page = render_sweep(sweep, Origin(by_model, made)).replace("\N{NO-BREAK SPACE}", " ")
    assert f"sftlab materialize 0{chosen.percent:02.0f}cdcdcdcdc<" in page
    assert "20 %: 120cdcdcdcdc<" in page and "secret-name" not in page
