"""The tables of a sweep's page: the paper's beside the measured numbers, with marks; strategies; findings."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from scipy import stats

from sftlab.analysis.statistics import ONE_SET
from sftlab.reporting.table import Row, Table
from sftlab.studies.knowledge.report import change_tables, published, strategies, tables
from sftlab.studies.knowledge.report.findings import HELPS, MORE_DATA, all_findings
from sftlab.studies.knowledge.report.lookup import MIXED, Group
from sftlab.studies.knowledge.report.plain_tables import correlation
from sftlab.studies.knowledge.report.strategy_figures import Moved, moved
from sftlab.studies.knowledge.report.tables import direction
from sftlab.studies.knowledge.report.view import View, paper_size
from sftlab.studies.knowledge.results.rows import BEST, CHOSEN, PLAIN
from sftlab.studies.knowledge.results.tables import Results, Variant
from sftlab.studies.load import load_sweep
from tests.support.report_sweep import made_up_sweep

CONFIGS = Path(__file__).parents[5] / "jobs" / "configs"
RANGES = tuple(f"restore:{first}-{first + 3}" for first in range(0, 32, 4))


@pytest.fixture(scope="module")
def sweep() -> Results:
    strategies = ("restore", "wise-ft", "l2-sp", "lora", "mixed", "restore:0-3")
    return made_up_sweep(strategies, seeds=(0, 1), percents=(0.0, 5.0, 20.0, 40.0, 60.0)).summarise_quickly()


@pytest.fixture(scope="module")
def view(sweep: Results) -> View:
    return View(sweep)


def test_table_4_has_the_papers_rows_columns_and_numbers(view: View) -> None:
    table = found(tables.ladder(view, "test"))
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


def test_table_2_and_6_hold_the_published_numbers(view: View) -> None:
    table = found(tables.by_test_bucket(view))
    assert len(table.columns) == 12 and len(table.rows) == 1 + 2 * 6
    assert not any(entry.below for row in table.rows[:7] for entry in row.entries)
    large = table.rows[8:]
    assert large[0].entries[0].below == ["1.8 ± 0.2"] and large[4].entries[11].below == ["50.2 ± 1.8"]
    shown = [float(row.entries[5].text.split()[0]) for row in large]
    assert {value for value, row in zip(shown, large, strict=True) if row.entries[5].strong} == {max(shown)}
    table = found(tables.ladder(view, "train_set"))
    assert [row.entries[1].below for row in table.rows if row.entries][:2] == [["61.3"], ["62.9"]]


def test_more_data_and_collapse_are_marked_by_bucket(view: View) -> None:
    table = found(tables.more_data(view))
    assert numbers(table.rows[0]) == pytest.approx([-10.37, -5.53, -0.52, -1.42, 1.25], abs=0.051)
    assert table.rows[0].entries[0].mark in ("agrees", "open")  # two training sets leave much open
    table = found(tables.collapse(view))
    assert [e.below[0] for e in table.rows[0].entries] == [
        "from 60\N{NO-BREAK SPACE}%",
        "from 60\N{NO-BREAK SPACE}%",
        "from 60\N{NO-BREAK SPACE}%",
        "from 40\N{NO-BREAK SPACE}%",
        "from 40\N{NO-BREAK SPACE}%",
    ]
    assert {e.mark for row in table.rows for e in row.entries} == {"agrees"}


def test_tables_3_9_and_10_agree_with_themselves(view: View) -> None:
    for table in (change_tables.concentration(view), change_tables.layers(view), change_tables.modules(view)):
        entries = [entry for row in found(table).rows for entry in row.entries]
        assert entries and "differs" not in {entry.mark for entry in entries}
        assert all(row.entries[-1].below for row in found(table).rows if row.entries)
    shares = [row.entries[1] for row in found(change_tables.layers(view)).rows]
    assert (shares[0].text, shares[0].below) == ("1.21", ["1.21", "shuffled 1.00"])
    assert shares[0].mark == "agrees"


def test_a_direction_that_shuffled_updates_have_too_is_open(view: View) -> None:
    def alike(variant: Variant) -> Variant:
        return replace(
            variant,
            concentration=[replace(row, null=row.share * 1.01) for row in variant.concentration],
            distribution=[replace(row, null=row.share * 1.01) for row in variant.distribution],
        )

    same = View(replace(view.results, variants=[alike(variant) for variant in view.results.variants]))
    for table in (change_tables.concentration, change_tables.layers, change_tables.modules):
        marks = {entry.mark for row in found(table(same)).rows for entry in row.entries}
        assert "agrees" not in marks and "open" in marks


def test_the_change_undone_is_shown_by_percentage(view: View) -> None:
    table = found(change_tables.undone(view))
    assert [row.heading for row in table.rows][:2] == ["1\xa0%", "3\xa0%"]
    assert [entry.text for entry in table.rows[0].entries] == [
        "1.0\xa0%",
        "31.6\xa0%",
        "1.0\xa0%",
        "3.2\xa0%",
    ]


def test_table_7_has_the_papers_strategies_then_the_others(view: View) -> None:
    table = found(strategies.table_7(view))
    assert [row.heading for row in table.rows][:5] == list(published.published()["strategies"]["rows"])
    assert {row.heading for row in table.rows[5:]} == {"wise-ft", "l2-sp"}
    assert table.rows[0].entries[0].text == "–" and table.rows[0].entries[0].below == ["53.8"]
    assert all(row.entries[0].text != "–" for row in table.rows[1:])


def test_lora_stands_in_table_7_on_mixed_buckets_where_it_was_trained_on_them() -> None:
    sweep = made_up_sweep(("restore", "lora"), ("2", MIXED), (240,), (0, 1), (0.0, 20.0)).summarise_quickly()
    better = [
        replace(r, dev=0.99) if (r.strategy, r.train_bucket) == ("lora", "2") else r for r in sweep.choice
    ]
    view = View(replace(sweep, choice=better))
    table = found(strategies.table_7(view))
    score = view.score("lora", Group(MIXED, 240), 0.0, "test")
    assert score is not None
    assert (table.rows[3].heading, table.rows[3].entries[0].text) == (
        "LoRA",
        tables.accuracy_text(score),
    )
    assert table.note.endswith("LoRA: trained on 240 facts of mixed buckets.")


def test_table_11_lines_ranges_up_by_depth() -> None:
    sweep = made_up_sweep(("restore", *RANGES), ("0", "3"), (240,), (0,), (0.0, 20.0)).summarise_quickly()
    table = found(strategies.table_11(View(sweep)))
    assert table.columns == ["0–3", "4–7", "8–11", "12–15", "16–19", "20–23", "24–27", "28–31"]
    paper = published.published()["layer_restoration"]["rows"]
    assert numbers(table.rows[0]) == pytest.approx(paper[0], abs=0.051)
    assert numbers(table.rows[1]) == pytest.approx(paper[3], abs=0.051)
    assert table.rows[1].entries[0].mark == "agrees"  # 59 % falls to 3 %


def test_the_shipped_sweep_over_layers_fills_table_11_with_a_column_a_layer() -> None:
    spec, _ = load_sweep(CONFIGS / "sweeps" / "layers_pocket.yaml")
    named = [":".join([s.name, *map(str, s.parameters.values())]) for s in spec.axes.strategy]
    assert named[0] == "restore" and len(named) == 5 and spec.axes.percent == (0.0, 100.0)
    sweep = made_up_sweep(named, ("0", "1", "2", "3", "4"), (100,), (0, 1), (0.0, 20.0)).summarise_quickly()
    table = found(strategies.table_11(View(sweep)))
    assert table.columns == ["0", "1", "2", "3"]
    assert [row.heading for row in table.rows] == [f"bucket {bucket}" for bucket in range(5)]
    paper = published.published()["layer_restoration"]["rows"]
    for bucket, row in enumerate(table.rows):  # a layer of four beside the two published ranges at its depth
        theirs = [(paper[bucket][part] + paper[bucket][part + 1]) / 2 for part in (0, 2, 4, 6)]
        assert numbers(row) == pytest.approx(theirs, abs=0.051)
        assert all(entry.mark and "±" in entry.text for entry in row.entries)
    assert table.note.startswith("100\N{NO-BREAK SPACE}% of each range restored.")


def test_published_sizes_stand_beside_equal_or_outermost_ones() -> None:
    assert [paper_size(n, [60, 240, 1920]) for n in (60, 240, 1920)] == [None, 240, 1920]
    assert [paper_size(n, [25, 50, 100]) for n in (25, 50, 100)] == [240, None, 1920]
    assert paper_size(25, [25]) == 1920


def test_plain_restoration_stands_in_table_7_and_not_its_ablations() -> None:
    sweep = made_up_sweep(("restore", "restore:0-3"), ("2",), (240,), (0, 1), (0.0, 20.0)).summarise_quickly()
    ablation = [replace(r, dev=0.99) if r.variant == "restore:0-3" else r for r in sweep.choice]
    view = View(replace(sweep, choice=ablation))
    row = found(strategies.table_7(view)).rows[4]
    plain = view.score("restore", Group("2", 240), view.choices("variant")[0].percent, "test")
    assert plain is not None
    assert (row.heading, row.entries[0].text) == ("Parameter Restoration", tables.accuracy_text(plain))


def test_whether_restoring_helps_counts_the_verdicts(view: View) -> None:
    rows = [r for r in view.family(CHOSEN) if r.variant == "restore" and r.split == "test"]
    better = sum(r.verdict == "better" for r in rows)
    finding = next(f for f in all_findings(view) if f.question == HELPS)
    assert f"Of {len(rows)} groups of training sets {better} are better, 0 worse" in finding.here


@pytest.mark.parametrize(("seeds", "shift", "agrees"), [(3, 0.0, True), (3, 0.3, None), (1, 0.0, None)])
def test_harm_is_decided_over_training_sets(seeds: int, shift: float, agrees: bool | None) -> None:
    sweep = made_up_sweep(("restore",), ("0", "1"), seeds=range(seeds), percents=(0.0,)).summarise_quickly()
    moves = {0: -shift, 1: shift}
    (variant,) = sweep.variants
    rows = [
        replace(r, accuracy=r.accuracy + moves.get(r.set_seed or 0, 0.0)) if r.size == 1920 else r
        for r in variant.accuracy
    ]
    found = all_findings(View(replace(sweep, variants=[replace(variant, accuracy=rows)])))
    assert next(f for f in found if f.question == MORE_DATA).agrees is agrees


def test_tables_of_verdicts_say_what_they_could_have_detected(view: View) -> None:
    rows = view.results.comparisons
    seen = [row.detectable for row in rows]
    assert all(value is not None and value >= 0 for value in seen)
    for table in (strategies.best(view), strategies.every_verdict(view)):
        assert "Smallest true difference that would have been detected with 80 % power" in found(table).note
    one = replace(rows[0], seeds=1, detectable=None, p_corrected=None, verdict=ONE_SET)
    assert strategies.detectable([one]) == "1 comparison of one training set: no verdict."
    assert strategies.verdict_entry(one).below[1:] == ["for this training set"]


def test_an_own_strategy_that_edits_the_plain_tuned_models_is_told_against_them() -> None:
    made_up = made_up_sweep(("restore", "wise-ft", "l2-sp"), ("2",), (240,), (0, 1), (0.0, 20.0))
    made_up.variants[1] = replace(
        made_up.variants[1], strategy="clip"
    )  # a name that the report does not know
    sweep = made_up.summarise_quickly()
    assert {r.variant for r in sweep.comparisons if r.family == PLAIN} == {"l2-sp"}
    view = View(sweep)
    own = next(r for r in view.choices("group") if r.strategy == "clip")
    against = view.against_plain(own, "test")
    assert against is not None and against.family == CHOSEN
    other = next(r for r in view.choices("group") if r.strategy == "l2-sp")
    found = view.against_plain(other, "test")
    assert found is not None and found.family == PLAIN


def test_the_recommendation_has_one_verdict_against_its_tuned_models() -> None:
    sweep = made_up_sweep(("restore", "wise-ft"), ("2",), (240,), (0, 1), (0.0, 20.0)).summarise_quickly()
    choice = View(sweep).recommended
    assert choice is not None and choice.percent == 20.0
    row = sweep.against_tuned(choice, "test")
    own = sweep.comparison(CHOSEN, choice, "test")
    assert row is not None and own is not None
    assert row.family == BEST and row.against_percent == 0.0 and row.difference == own.difference
    other = next(r for r in View(sweep).choices("group") if r.variant != choice.variant and r.percent)
    found = sweep.against_tuned(other, "test")
    assert found is not None and found.family == CHOSEN


def test_strategies_are_ranked_by_dev(view: View) -> None:
    rows = strategies.ranked(view)
    assert [row.dev for row in rows] == sorted((row.dev for row in rows), reverse=True)
    table = found(strategies.best(view))
    assert [row.heading for row in table.rows] == [row.strategy for row in rows]
    text = " ".join(line for row in table.rows for entry in row.entries for line in entry.below)
    assert "questions × 2 sets" in text
    assert "no significant difference" in text or "better" in text


def test_correlation_is_over_groups_pooled_and_by_size(view: View) -> None:
    assert view.main is not None
    groups = moved(view.main, "restore", seeds=False)
    assert len(groups) == 10 and len(moved(view.main, "restore", seeds=True)) == 20
    table = found(correlation(groups))
    expected = stats.pearsonr([g.kl for g in groups], [g.accuracy for g in groups]).statistic
    assert table.rows[0].entries[0].text == f"{expected:.2f}".replace("-", "\N{MINUS SIGN}")
    assert [row.heading for row in table.rows] == [
        "restore",
        "restore, within a size",
        "restore, 240 facts",
        "restore, 1,920 facts",
    ]
    assert all(" to " in entry.below[0] for row in table.rows for entry in row.entries[:2])
    same = [Moved("restore", g.group, 1.0, g.accuracy) for g in groups]
    assert correlation(same) is None and correlation(groups[:3]) is None


def numbers(row: Row) -> list[float]:
    """The published numbers of a row."""
    return [float(entry.below[0].replace("\N{MINUS SIGN}", "-")) for entry in row.entries]


def found(table: Table | None) -> Table:
    assert table is not None
    return table
