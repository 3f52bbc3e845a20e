"""The tables of a sweep: filled from answers, chosen on dev, tested on test, written and read."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from sftlab.analysis.statistics import ONE_SET, holm, paired_difference, score_interval, seed_of, verdict
from sftlab.errors import UserError
from sftlab.studies.knowledge.results.choice import METRICS, Members, choose
from sftlab.studies.knowledge.results.controls import controlled
from sftlab.studies.knowledge.results.rows import BEST, CHOSEN, CONTROLS, PLAIN, CellRow, ChoiceRow, GroupRow
from sftlab.studies.knowledge.results.statistics import Answers, fill_tables, groups_of
from sftlab.studies.knowledge.results.tables import (
    OPTIONAL_TABLES,
    RESULT_TABLES,
    RESULTS_FILE,
    VARIANT_TABLES,
    Results,
    Variant,
)
from tests.support.refusals import refused
from tests.support.report_sweep import MadeUp, made_up_sweep

SMALL = {"buckets": ("0", "2"), "sizes": (240,), "percents": (0.0, 10.0, 20.0, 60.0)}


def filled(variants: Sequence[Variant], answers: Answers, **changes: Any) -> Results:
    return fill_tables(Results("x", "m", variants=variants, **changes), answers)


@pytest.fixture(scope="module")
def made_up() -> MadeUp:
    return made_up_sweep(**SMALL)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def sweep(made_up: MadeUp) -> Results:
    return made_up.summarise()


def restoring(made_up: MadeUp, name: str, copy_of: str, **restore: Any) -> tuple[Variant, MadeUp]:
    """A variant with the answers of another one, under another restoration."""
    variant = next(v for v in made_up.variants if v.name == copy_of)
    spec = {"restore": {"percents": [0, 10, 20, 60], "order": "top", "seed": 0, **restore}}
    return replace(variant, name=name, strategy="restore", spec=spec), made_up


def test_a_restoration_by_relative_change_is_compared_with_its_controls_at_its_percentage(
    made_up: MadeUp,
) -> None:
    variants = [
        restoring(made_up, name, copy_of, **restore)[0]
        for name, copy_of, restore in (
            ("top", "restore", {}),
            ("random", "wise-ft", {"order": "random", "seed": 3}),
            ("absolute", "restore", {"measure": "absolute"}),
            ("top l1", "restore", {"share_of": "l1"}),
            ("small l1", "wise-ft", {"share_of": "l1", "order": "smallest-base"}),
            ("other region", "wise-ft", {"region": "mlp", "order": "random"}),
        )
    ]
    assert controlled(variants) == {"top": ["random", "absolute"], "top l1": ["small l1"]}
    copies = {"top": "restore", "random": "wise-ft", "absolute": "restore"}

    def answers(variant: str, *rest: Any) -> Any:
        return made_up.answers(copies[variant], *rest)

    sweep = filled(variants[:3], answers)
    rows = [row for row in sweep.comparisons if row.family == CONTROLS]
    chosen = {r.group[1:]: r.percent for r in sweep.choice if r.scope == "group" and r.variant == "top"}
    assert {(row.variant, row.against_variant) for row in rows} == {("top", "random"), ("top", "absolute")}
    assert len(rows) == 2 * 2 * sum(percent > 0 for percent in chosen.values())  # controls, splits
    for row in rows:
        assert row.percent == row.against_percent == chosen[row.train_bucket, row.size]
        if row.against_variant == "absolute":
            assert (row.difference, row.gained, row.lost, row.decided) == (0.0, 0, 0, False)


def test_groups_are_the_cells_that_differ_in_the_seed_alone(made_up: MadeUp) -> None:
    groups = groups_of(made_up.variants[0])
    assert [(g.train_bucket, g.size) for g in groups] == [("0", 240), ("2", 240)]
    assert [cell.set_seed for cell in groups[0].cells] == [0, 1, 2]


def test_every_model_has_its_scores(made_up: MadeUp, sweep: Results) -> None:
    rows = [r for r in sweep.groups if r.bucket is None]
    # two variants with four percentages and one with 0 % alone; two groups; five splits
    assert len(rows) == (4 + 4 + 1) * 2 * 5
    row = next(
        r for r in rows if (r.variant, r.train_bucket, r.percent, r.split) == ("restore", "2", 10.0, "test")
    )
    cells = [cell for cell in made_up.variants[0].cells if cell.train_bucket == "2"]
    answers = [made_up.answers("restore", cell.cell, 10.0, "test") for cell in cells]
    correct, buckets = np.stack([a for a, _ in answers]), answers[0][1]
    found = score_interval(correct, buckets, seed_of("score", "restore", "2", 240, 10.0, "test"))
    assert (row.mean, row.sd, row.low, row.high) == found
    assert (row.seeds, row.questions) == (3, 240)
    accuracies = [
        r.accuracy
        for r in made_up.variants[0].accuracy
        if r.train_bucket == "2" and r.percent == 10.0 and r.split == "test" and r.bucket is None
    ]
    assert row.mean == pytest.approx(np.mean(accuracies))


def test_changes_are_paired_with_the_same_groups_tuned_models(sweep: Results) -> None:
    by = {(r.variant, r.train_bucket, r.percent, r.split, r.bucket): r for r in sweep.groups}
    for key, row in by.items():
        tuned = by[key[0], key[1], 0.0, key[3], key[4]]
        if row.percent == 0.0 or row.split.startswith("dev"):
            assert row.change is row.change_low is row.change_high is None
        else:
            assert row.change == pytest.approx(row.mean - tuned.mean)
            assert row.change_low <= row.change <= row.change_high


def test_training_set_scores_take_each_seeds_own_questions(sweep: Results) -> None:
    row = next(r for r in sweep.groups if r.split == "train_set" and r.train_bucket == "0" and r.bucket == 0)
    assert (row.seeds, row.questions) == (3, 120)


def test_choice_is_made_on_dev_and_nothing_else(made_up: MadeUp, sweep: Results) -> None:
    worse = dict(made_up.given)
    for key, (right, buckets) in made_up.given.items():
        if key[3].startswith("test"):
            worse[key] = (np.zeros_like(right), buckets)
    other = filled(made_up.variants, lambda *key: worse[key])
    chosen = [(r.scope, r.variant, r.train_bucket, r.percent, r.dev) for r in sweep.choice]
    assert [(r.scope, r.variant, r.train_bucket, r.percent, r.dev) for r in other.choice] == chosen
    assert all(r.test == 0.0 for r in other.choice if r.scope not in ("cell", "common"))


def test_choices_have_every_scope(sweep: Results) -> None:
    assert Counter(r.scope for r in sweep.choice) == {
        "cell": 18,
        "common": 3,
        "group": 6,
        "variant": 3,
        "strategy": 3,
        "recommended": 1,
    }
    recommended = sweep.choice[-1]
    assert recommended.dev == max(r.dev for r in sweep.choice if r.scope == "group")
    assert recommended.questions == 5 * (48 + 40)


def test_of_equal_dev_scores_the_smaller_percentage_wins() -> None:
    even = scored("a", {0.0: 0.4, 10.0: 0.6, 5.0: 0.6}, {0.0: 0.4, 10.0: 0.6, 5.0: 0.6})
    assert chosen_of([even])["recommended", ""] == ("a", 5.0, 0.6)
    both = scored("a", {0.0: 0.5, 5.0: 0.6}, {0.0: 0.5, 5.0: 0.3})
    assert chosen_of([both])["recommended", ""] == ("a", 0.0, 0.5)
    group, rows = both
    with refused("no accuracy on dev", place="a, data 0, 240 facts"):
        choose([group], [replace(row, split="test") for row in rows])


def scored(
    variant: str, dev: dict[float, float], ood: dict[float, float], seeds: int = 3, bucket: str = "0"
) -> tuple[Members, list[GroupRow]]:
    """A group of so many training sets, with its mean dev scores; the strategy is what stands before the dash."""
    cells = [CellRow(f"{variant}-{seed}", bucket, 240, seed) for seed in range(seeds)]
    by_split = {"dev": dev, "dev_ood": ood}
    rows = [
        GroupRow(variant, bucket, 240, percent, split, None, seeds, 10, mean, None, mean, mean)
        for split, by in by_split.items()
        for percent, mean in by.items()
    ]
    return Members(variant, variant.partition("-")[0], bucket, 240, [c.cell for c in cells]), rows


def chosen_of(
    made: list[tuple[Members, list[GroupRow]]], metric: str = "dev"
) -> dict[tuple[str, str], tuple[str, float, float]]:
    """Variant, percentage and dev score by scope and variant or strategy."""
    found = choose([group for group, _ in made], [row for _, rows in made for row in rows], metric)
    names = {"variant": "variant", "strategy": "strategy"}
    return {
        (r.scope, getattr(r, names[r.scope]) if r.scope in names else ""): (
            r.variant,
            r.percent,
            round(r.dev, 9),
        )
        for r in found
        if r.scope != "group"
    }


def test_each_metric_makes_the_final_choice_by_its_own_splits() -> None:
    a = scored("a", {0.0: 0.40, 10.0: 0.60, 20.0: 0.30}, {0.0: 0.40, 10.0: 0.30, 20.0: 0.62})
    b = scored("b", {0.0: 0.50, 10.0: 0.55, 20.0: 0.20}, {0.0: 0.20, 10.0: 0.50, 20.0: 0.66})
    # a: means 0.40, 0.45, 0.46; b: 0.35, 0.525, 0.43
    expected = {
        "dev": [("a", 20.0, 0.46), ("b", 10.0, 0.525), ("b", 10.0, 0.525)],
        "dev_in_domain": [("a", 10.0, 0.60), ("b", 10.0, 0.55), ("a", 10.0, 0.60)],
        "dev_out_of_domain": [("a", 20.0, 0.62), ("b", 20.0, 0.66), ("b", 20.0, 0.66)],
    }
    assert expected.keys() == METRICS.keys()
    for metric, (of_a, of_b, best) in expected.items():
        found = chosen_of([a, b], metric)
        assert [found["variant", "a"], found["variant", "b"], found["recommended", ""]] == [of_a, of_b, best]


def test_a_group_of_one_lucky_seed_does_not_beat_groups_of_three() -> None:
    made = [
        scored("a-1", {0.0: 0.4}, {0.0: 0.4}),
        scored("a-1", {0.0: 0.9}, {0.0: 0.9}, seeds=1, bucket="1"),
        scored("a-2", {0.0: 0.5}, {0.0: 0.5}),
        scored("b-1", {0.0: 0.8}, {0.0: 0.8}, seeds=1),
        scored("b-1", {0.0: 0.6}, {0.0: 0.6}, seeds=2, bucket="1"),
    ]
    found = chosen_of(made)
    assert found["variant", "a-1"] == ("a-1", 0.0, 0.4)  # not its group of bucket 1
    assert found["strategy", "a"] == ("a-2", 0.0, 0.5)
    assert found["strategy", "b"] == ("b-1", 0.0, 0.6)  # of its own groups the fullest has two
    assert found["recommended", ""] == ("a-2", 0.0, 0.5)


def test_the_metric_of_a_sweep_reaches_its_choice_and_what_is_written(
    made_up: MadeUp, tmp_path: Path
) -> None:
    for metric, splits in {"dev_in_domain": {"dev"}, "dev_out_of_domain": {"dev_ood"}}.items():
        sweep = filled(made_up.variants, made_up.answers, metric=metric)
        means = [r.mean for r in sweep.groups if r.bucket is None and r.split in splits]
        assert sweep.choice[-1].dev == max(means)
        sweep.write(tmp_path / metric)
        assert Results.read(tmp_path / metric).metric == metric
    file = tmp_path / "dev_in_domain" / RESULTS_FILE
    file.write_text(file.read_text().replace('"dev_in_domain"', '"luck"'))
    with refused("'luck' is no metric", place="results.json: metric", value="luck"):
        Results.read(file.parent)


def test_families_of_comparisons(sweep: Results) -> None:
    chosen = [r for r in sweep.choice if r.scope == "group" and r.percent > 0]
    by_family = Counter(r.family for r in sweep.comparisons)
    assert by_family[CHOSEN] == 2 * len(chosen)
    # l2-sp, two groups, test and test_ood; the tuned models of wise-ft are the plain ones
    assert by_family[PLAIN] == 2 * 2
    assert {r.variant for r in sweep.comparisons if r.family == PLAIN} == {"l2-sp"}
    assert by_family[BEST] > 0
    assert sweep.reference == "restore"
    for row in sweep.comparisons:
        assert row.split in ("test", "test_ood") and row.seeds == 3
        if row.family == CHOSEN:
            assert (row.against_variant, row.against_percent) == (row.variant, 0.0)
        if row.family == PLAIN:
            assert (row.against_variant, row.against_percent) == ("restore", 0.0)
            assert (row.against_bucket, row.against_size) == (row.train_bucket, row.size)
    first = next(r for r in sweep.comparisons if r.family == BEST)
    recommended = sweep.choice[-1]
    assert (first.variant, first.percent) == (recommended.variant, recommended.percent)


def test_a_variant_with_the_plain_tuned_models_is_tested_against_them_once(made_up: MadeUp) -> None:
    def otherwise_tuned(
        variant: str, cell: str, percent: float, split: str
    ) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.int64]]:
        right, buckets = made_up.answers(variant, cell, percent, split)
        changed = (variant, percent, split) == ("wise-ft", 0.0, "test_ood")
        return (np.append(~right[:1], right[1:]) if changed else right), buckets

    sweep = filled(made_up.variants, otherwise_tuned)
    # One answer of a tuned model is enough to tell them apart, in both splits.
    assert Counter(r.variant for r in sweep.comparisons if r.family == PLAIN) == {"wise-ft": 4, "l2-sp": 4}
    tested = [(*r.__dict__.values(),)[1:10] for r in made_up.summarise().comparisons if r.family != BEST]
    assert len(tested) == len(set(tested))  # no pair twice in CHOSEN and PLAIN
    assert all(pair[:4] != pair[4:8] for pair in tested)  # and none with itself


def test_p_values_are_corrected_within_their_family_alone(sweep: Results) -> None:
    for family in (CHOSEN, PLAIN, BEST):
        rows = [r for r in sweep.comparisons if r.family == family]
        assert [r.p_corrected for r in rows] == holm([r.p for r in rows])
        for row in rows:
            assert row.p_sets is not None and row.p == max(row.p_questions, row.p_sets)
            assert row.verdict == verdict(row.difference, row.p_corrected or 0.0)
            assert row.detectable is not None and row.detectable > 0


def test_one_training_set_has_no_verdict_and_no_part_in_the_correction() -> None:
    one = made_up_sweep(("restore",), ("0", "2"), (240,), (0,), (0.0, 20.0)).summarise_quickly()
    assert one.comparisons
    for row in one.comparisons:
        assert (row.verdict, row.p_corrected, row.p_sets, row.detectable) == (ONE_SET, None, None, None)
        assert not row.decided


def test_a_comparison_is_the_paired_difference_of_the_two_groups(made_up: MadeUp, sweep: Results) -> None:
    row = next(
        r for r in sweep.comparisons if r.family == PLAIN and r.variant == "l2-sp" and r.split == "test"
    )
    cells = [c.cell for c in made_up.variants[0].cells if c.train_bucket == row.train_bucket]
    first = np.stack([made_up.answers("l2-sp", cell, 0.0, "test")[0] for cell in cells])
    second = np.stack([made_up.answers("restore", cell, 0.0, "test")[0] for cell in cells])
    buckets = made_up.answers("restore", cells[0], 0.0, "test")[1]
    seed = seed_of(
        "difference", "l2-sp", row.train_bucket, 240, 0.0, "restore", row.train_bucket, 240, 0.0, "test"
    )
    found = paired_difference(first, second, buckets, seed)
    assert (row.difference, row.low, row.high, row.p, row.p_questions, row.p_sets) == found[:6]
    assert (row.p_mcnemar, row.gained, row.lost, row.questions) == (*found[6:9], 240)


def test_variants_of_other_seeds_are_compared_on_the_shared_ones(made_up: MadeUp) -> None:
    first, other = made_up.variants[0], made_up.variants[2]
    cells = [cell for cell in other.cells if cell.set_seed > 0]
    fewer = replace(other, cells=cells)
    sweep = filled([first, fewer], made_up.answers)
    assert {r.seeds for r in sweep.comparisons if r.family == PLAIN} == {2}
    none = [replace(cell, set_seed=cell.set_seed + 10) for cell in other.cells]
    apart = replace(other, cells=none)
    sweep = filled([first, apart], made_up.answers)
    assert not [r for r in sweep.comparisons if r.family == PLAIN]


def test_facts_without_a_bucket_are_left_out(made_up: MadeUp, sweep: Results) -> None:
    def with_one_more(*key: object) -> tuple[object, object]:
        right, buckets = made_up.answers(*key)  # type: ignore[arg-type]
        return np.append(right, True), np.append(buckets, -1)

    found = filled(made_up.variants, with_one_more)  # type: ignore[arg-type]
    assert found.groups == sweep.groups


def test_models_that_answered_other_questions_are_refused(made_up: MadeUp) -> None:
    def shuffled(variant: str, cell: str, percent: float, split: str) -> tuple[object, object]:
        right, buckets = made_up.answers(variant, cell, percent, split)
        return (right[::-1], buckets[::-1]) if cell.endswith("s1") else (right, buckets)

    with refused("did not answer the same questions of dev"):
        filled(made_up.variants, shuffled)  # type: ignore[arg-type]


def test_bad_variants_are_refused(made_up: MadeUp) -> None:
    twice = [made_up.variants[0]] * 2
    with pytest.raises(UserError, match="share a name"):
        filled(twice, made_up.answers)
    with refused("no variant 'other'", place="reference", value="other", expected="restore, wise-ft, l2-sp"):
        filled(made_up.variants, made_up.answers, reference="other")


def test_empty_sweep_has_empty_tables(made_up: MadeUp) -> None:
    sweep = filled([], made_up.answers)
    assert (sweep.groups, sweep.comparisons, sweep.choice, sweep.reference) == ((), (), (), None)


def test_results_are_the_same_each_time_and_do_not_depend_on_other_variants(
    made_up: MadeUp, sweep: Results
) -> None:
    assert made_up.summarise() == sweep
    alone = filled(made_up.variants[:1], made_up.answers)
    assert list(alone.groups) == [r for r in sweep.groups if r.variant == "restore"]


def test_written_results_are_read_back(sweep: Results, tmp_path: Path) -> None:
    sweep.write(tmp_path / "a")
    read = Results.read(tmp_path / "a")
    for name in RESULT_TABLES:
        assert list(getattr(read, name)) == list(getattr(sweep, name))
    assert (read.name, read.model, read.metric, read.reference) == (
        sweep.name,
        sweep.model,
        sweep.metric,
        sweep.reference,
    )
    assert [v.name for v in read.variants] == [v.name for v in sweep.variants]
    assert list(read.variants[1].accuracy) == list(sweep.variants[1].accuracy)
    read.write(tmp_path / "b")
    files = sorted(p.relative_to(tmp_path / "a") for p in (tmp_path / "a").rglob("*") if p.is_file())
    assert len(files) == 1 + len(RESULT_TABLES) + 3 * len(VARIANT_TABLES.keys() - OPTIONAL_TABLES)
    assert all((tmp_path / "a" / f).read_bytes() == (tmp_path / "b" / f).read_bytes() for f in files)


def test_unreadable_results_are_named(sweep: Results, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=RESULTS_FILE):
        Results.read(tmp_path)
    sweep.write(tmp_path)
    (tmp_path / "groups.parquet").write_bytes(b"no table")
    with pytest.raises(UserError, match=r"groups\.parquet"):
        Results.read(tmp_path)
    (tmp_path / RESULTS_FILE).write_text('{"format": 7}')
    with pytest.raises(UserError, match="format 1"):
        Results.read(tmp_path)


def test_a_choice_row_names_its_strategy(sweep: Results) -> None:
    row: ChoiceRow = next(r for r in sweep.choice if r.scope == "strategy" and r.strategy == "l2-sp")
    variant: Variant = next(v for v in sweep.variants if v.name == row.variant)
    assert variant.strategy == "l2-sp" and row.percent == 0.0
