"""Where dev makes no choice the page says so; what a page says of ids, of the ladder's strategy and of its origin."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import pytest

from sftlab.studies.knowledge.report import tables
from sftlab.studies.knowledge.report.findings import collapse
from sftlab.studies.knowledge.report.origin import Origin
from sftlab.studies.knowledge.report.page import render
from sftlab.studies.knowledge.report.strategies import ranked
from sftlab.studies.knowledge.report.summary import summarise
from sftlab.studies.knowledge.report.ties import tie_of
from sftlab.studies.knowledge.report.view import View
from sftlab.studies.knowledge.results.choice import choose
from sftlab.studies.knowledge.results.rows import AccuracyRow
from sftlab.studies.knowledge.results.statistics import groups_of
from sftlab.studies.knowledge.results.tables import Recommended, Results
from sftlab.studies.knowledge.results.ties import Setting, ties
from tests.support.report_study import filled, paper_study, paper_variant, with_scores
from tests.support.report_sweep import made_up_sweep


def flat_study(scores: Mapping[tuple[str, float], float]) -> Results:
    """A study of two training sets whose mean dev scores are these, by bucket, and 0.1 where they name none."""
    study = paper_study(buckets=(1, 2), sizes=(240,))
    rows = [
        replace(r, mean=scores.get((r.train_bucket, r.percent), 0.1))
        if r.split.startswith("dev") and r.bucket is None
        else r
        for r in study.groups
    ]
    members = [group.members for variant in study.variants for group in groups_of(variant)]
    return replace(study, groups=rows, choice=choose(members, rows))


def recommended(study: Results) -> Recommended:
    found = study.recommended()
    assert found is not None
    return found


def test_one_best_model_on_dev_is_recommended_without_a_word_about_ties() -> None:
    study = flat_study({("2", 10.0): 0.3})
    assert ties(study, recommended(study).choice) == []
    assert "no choice" not in render(study) and "chosen on dev" in render(study)


def test_groups_that_tie_on_dev_are_named_and_none_is_called_chosen() -> None:
    study = flat_study({("2", 10.0): 0.3, ("2", 20.0): 0.3, ("1", 5.0): 0.3})
    assert recommended(study).model == ("restore", "bucket1-n240-s0", 5.0)
    found = ties(study, recommended(study).choice)
    assert [(s.train_bucket, s.percent) for s in found] == [("2", 10.0), ("2", 20.0)]
    summary = summarise(View(study))
    text = summary.recommendation.replace("\N{NO-BREAK SPACE}", " ")
    assert text.startswith(
        "Dev makes no choice here: 3 settings tie at 30.0 %. The first of them: fine-tune on 240"
    )
    sentences = " ".join(summary.sentences).replace("\N{NO-BREAK SPACE}", " ")
    assert "the first of them: bucket 2, 240 facts, 10 %; bucket 2, 240 facts, 20 %." in sentences
    assert "one of the best of 16 settings in 2 groups" in sentences
    assert summary.figures[-1].change == "tied on dev"


def test_a_sum_in_another_order_is_a_tie_too() -> None:
    study = flat_study({("2", 10.0): 0.3, ("2", 20.0): 0.1 + 0.2})
    assert recommended(study).percent == 20.0  # by the last bit
    assert [s.percent for s in ties(study, recommended(study).choice)] == [10.0]


def test_nothing_better_than_0_percent_is_said_with_those_that_are_as_good() -> None:
    study = flat_study({("1", 0.0): 0.3, ("1", 5.0): 0.3})
    summary = summarise(View(study))
    text = " ".join([summary.recommendation, *summary.sentences]).replace("\N{NO-BREAK SPACE}", " ")
    assert "restore nothing. On dev no percentage was better than 0 %" in text
    assert "2 settings tie at 30.0 %" in text and "5 % in place of 0 %." in text


def flat_sweep(
    scores: Mapping[tuple[str, float], float], strategies: tuple[str, ...] = ("restore", "wise-ft")
) -> Results:
    """A sweep of one group a strategy, whose mean dev scores are these (by variant), and 0.1 elsewhere."""
    sweep = made_up_sweep(strategies, ("2",), (240,), (0, 1), (0.0, 5.0, 20.0)).summarise_quickly()
    rows = [
        replace(r, mean=scores.get((r.variant, r.percent), 0.1))
        if r.split.startswith("dev") and r.bucket is None
        else r
        for r in sweep.groups
    ]
    members = [group.members for variant in sweep.variants for group in groups_of(variant)]
    return replace(sweep, groups=rows, choice=choose(members, rows))


def test_settings_of_a_sweep_that_tie_are_named() -> None:
    sweep = flat_sweep({("restore", 5.0): 0.3, ("wise-ft", 20.0): 0.3})
    view = View(sweep)
    assert view.recommended is not None and view.recommended.percent == 5.0
    assert ties(sweep, view.recommended) == [Setting("wise-ft", "2", 240, 20.0)]
    summary = summarise(view)
    text = summary.recommendation.replace("\N{NO-BREAK SPACE}", " ")
    assert text.startswith(
        "Dev makes no choice here: 2 settings tie at 30.0 %. The first of them: fine-tune on"
    )
    told = " ".join(summary.sentences).replace("\N{NO-BREAK SPACE}", " ")
    assert "one of the best of 6 settings" in told
    assert "As good on dev as the first of them: wise-ft, bucket 2, 240 facts, 20 %." in told


def test_the_tuned_model_that_strategies_share_is_no_tie_with_itself() -> None:
    sweep = flat_sweep({("restore", 0.0): 0.3, ("wise-ft", 0.0): 0.3})
    chosen = View(sweep).recommended
    assert chosen is not None and chosen.percent == 0.0 and tie_of(sweep, chosen) is None
    told = summarise(View(sweep)).recommendation
    assert "On dev no percentage was better than 0 %" in told
    other = [replace(v, spec={"sft": {"epochs": 2}}) if v.name == "wise-ft" else v for v in sweep.variants]
    tied = ties(replace(sweep, variants=other), chosen)
    assert tied == [Setting("wise-ft", "2", 240, 0.0)]


def test_percentages_that_some_seeds_lack_do_not_tie() -> None:
    sweep = flat_sweep({("restore", 5.0): 0.3, ("restore", 20.0): 0.3})
    chosen = View(sweep).recommended
    assert chosen is not None and len(ties(sweep, chosen)) == 1
    one_seed = [replace(r, seeds=1) if r.percent == 20.0 else r for r in sweep.groups]
    assert ties(replace(sweep, groups=one_seed), chosen) == []


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
    chosen = View(sweep).recommended
    assert chosen is not None and len(ties(sweep, chosen)) == 1
    assert ties(replace(sweep, metric="dev"), chosen) == []


def test_groups_of_fewer_seeds_do_not_tie_and_the_page_names_the_rule() -> None:
    sweep = flat_sweep({("restore", 5.0): 0.3, ("wise-ft", 20.0): 0.3})
    assert View(sweep).competing_rule == ""
    few = [replace(r, seeds=1) if r.variant == "wise-ft" else r for r in sweep.groups]
    rows = [
        replace(r, seeds=1, dev=0.9) if r.variant == "wise-ft" and r.scope != "recommended" else r
        for r in sweep.choice
    ]
    view = View(replace(sweep, groups=few, choice=rows))
    assert view.recommended is not None and ties(view.results, view.recommended) == []
    assert "1 group has fewer than 2" in view.competing_rule
    told = " ".join(summarise(view).sentences)
    assert view.competing_rule in told and "the best of 3 settings in 1 group of training sets" in told
    assert [row.strategy for row in ranked(view)] == ["restore", "wise-ft"]  # not the lucky one first


def test_collapse_is_not_judged_where_the_tuned_models_answer_nothing() -> None:
    sweep = made_up_sweep(("restore",), ("2", "3"), (240,), (0,), (0.0, 20.0, 60.0)).summarise_quickly()
    rows = [replace(r, mean=0.0) if r.train_bucket == "2" and r.split == "test" else r for r in sweep.groups]
    table = tables.collapse(View(replace(sweep, groups=rows)))
    assert table is not None
    silent, usual = table.rows[0].entries
    assert (silent.text, silent.mark) == ("n/a", "") and silent.below
    assert usual.mark in ("agrees", "differs")

    def nothing(row: AccuracyRow) -> AccuracyRow:
        return replace(row, accuracy=0.0) if row.split == "test" else row

    study = paper_study(buckets=(2,), sizes=(240,), seeds=(0, 1, 2))
    for of, agrees in ((with_scores(study, nothing), None), (study, True)):
        main = View(of).main
        assert main is not None
        finding = collapse(main)
        assert finding is not None and finding.agrees is agrees


@pytest.mark.parametrize("method", ["wise-ft", "dare"])
def test_a_study_of_another_strategy_is_described_in_its_words(method: str) -> None:
    variant = paper_variant(buckets=(2,), sizes=(240,))
    spec = {**variant.spec, "restore": {**variant.spec["restore"], "method": method}}
    summary = summarise(View(filled(replace(variant, name=method, strategy=method, spec=spec))))
    texts = [summary.recommendation, summary.studied, *summary.sentences]
    texts += [part for figure in summary.figures for part in (figure.label, figure.change)]
    texts += [] if summary.table is None else [row.heading for row in summary.table.rows]
    assert not [text for text in texts if "restor" in text.lower()]
    assert any(f"{method} at" in text for text in texts) and f"Percentage of {method}" in texts


def test_pages_name_the_ids_that_materialize_takes_and_no_host() -> None:
    study = paper_study(buckets=(2,), sizes=(240,))
    variant, cell, chosen = recommended(study).model
    ids = {(variant, cell, p): f"{p:02.0f}" + "ab" * 31 for p in (0.0, 1.0, chosen)}
    made = {"time": "2026-01-02T03:04:05+00:00", "cores": "2", "host": "secret-name", "commit": "c0ffee"}
    page = render(study, Origin(ids, made)).replace("\N{NO-BREAK SPACE}", " ")
    assert f"sftlab materialize {chosen:02.0f}" + "ab" * 5 + "<" in page
    assert "1 %: 01" + "ab" * 5 + "<" in page and "ab" * 6 not in page
    assert "secret-name" not in page and "2026-01-02T03:04:05+00:00" in page and "c0ffee" in page
