"""Choosing the restore percentage on dev."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sftlab.studies.knowledge.results.choice import (
    METRICS,
    best_percent,
    choose_by_cell,
    collapse_percent,
    dev_scores,
    metric_of,
)
from sftlab.studies.knowledge.results.rows import AccuracyRow, ChoiceRow
from tests.support.refusals import refused


def chosen(rows: Sequence[AccuracyRow], metric: str = "dev") -> list[ChoiceRow]:
    return choose_by_cell("restore", "restore", rows, metric)


relaxed = settings(deadline=None, max_examples=40)


def rows(cell: str, split: str, values: Mapping[float, float], questions: int = 100) -> list[AccuracyRow]:
    """Mean rows of one cell and split."""
    return [
        AccuracyRow(cell, "0", 24, 0, p, split, None, questions, round(v * questions), v)
        for p, v in values.items()
    ]


def picked(found: Sequence[ChoiceRow], scope: str) -> list[tuple[str | None, float]]:
    return [(row.cell, row.percent) for row in found if row.scope == scope]


TWO_CELLS = [
    *rows("x", "dev", {0: 0.40, 10: 0.50, 20: 0.44}),
    *rows("x", "dev_ood", {0: 0.40, 10: 0.30, 20: 0.46}),
    *rows("x", "test", {0: 0.41, 10: 0.99, 20: 0.43}),
    *rows("x", "test_ood", {0: 0.42, 10: 0.99, 20: 0.47}, questions=150),
    *rows("y", "dev", {0: 0.20, 10: 0.60, 20: 0.10}),
    *rows("y", "dev_ood", {0: 0.20, 10: 0.50, 20: 0.05}),
    *rows("y", "test", {0: 0.21, 10: 0.57, 20: 0.12}),
    *rows("y", "test_ood", {0: 0.22, 10: 0.49, 20: 0.06}, questions=150),
]


def test_each_cell_takes_the_best_mean_of_both_dev_splits_and_never_looks_at_test() -> None:
    found = chosen(TWO_CELLS)
    assert picked(found, "cell") == [("x", 20), ("y", 10)]
    x = found[0]
    assert (x.dev, x.dev_tuned) == (pytest.approx(0.45), pytest.approx(0.40))
    assert (x.test, x.test_tuned, x.test_ood, x.test_ood_tuned) == (0.43, 0.41, 0.47, 0.42)
    assert x.questions == 250


def test_a_metric_of_one_domain_chooses_by_that_alone() -> None:
    cells = [
        *rows("x", "dev", {0: 0.40, 10: 0.60, 20: 0.30}),
        *rows("x", "dev_ood", {0: 0.40, 10: 0.30, 20: 0.62}),
        *rows("y", "dev", {0: 0.50, 10: 0.55, 20: 0.20}),
        *rows("y", "dev_ood", {0: 0.20, 10: 0.50, 20: 0.66}),
    ]
    # x: 0 %, 10 %, 20 %: means 0.40, 0.45, 0.46
    assert [picked(chosen(cells, metric), "cell") for metric in METRICS] == [
        [("x", 20), ("y", 10)],
        [("x", 10), ("y", 10)],
        [("x", 20), ("y", 20)],
    ]


def test_a_metric_whose_split_was_not_asked_or_that_is_unknown_is_refused() -> None:
    in_domain = {"dev": {0.0: 0.1, 10.0: 0.2}}
    assert dev_scores("x", in_domain) == dev_scores("x", in_domain, "dev_in_domain") == in_domain["dev"]
    with refused("no accuracy on dev_ood", place="cell x"):
        dev_scores("x", in_domain, "dev_out_of_domain")
    for odd in ("kl", "", None, ["dev"]):
        with refused(expected="one of dev, dev_in_domain, dev_out_of_domain"):
            metric_of(odd)


def test_common_percentage_has_the_best_mean_over_cells() -> None:
    # 0 %: (0.40 + 0.20) / 2; 10 %: (0.40 + 0.55) / 2; 20 %: (0.45 + 0.075) / 2.
    (common,) = [row for row in chosen(TWO_CELLS) if row.scope == "common"]
    assert (common.cell, common.percent, common.dev) == (None, 10, pytest.approx(0.475))
    assert common.test == pytest.approx((0.99 + 0.57) / 2)


def test_ties_go_to_the_smaller_percentage() -> None:
    found = chosen(
        [
            *rows("x", "dev", {0: 0.5, 5: 0.6, 20: 0.6}),
            *rows("y", "dev", {0: 0.6, 5: 0.6, 20: 0.5}),
            *rows("z", "dev", {0: 0.6, 5: 0.6, 20: 0.5}),
        ]
    )
    assert picked(found, "cell") == [("x", 5), ("y", 0), ("z", 0)]


def test_study_without_out_of_domain_facts_chooses_on_dev_alone() -> None:
    (row, *_) = chosen([*rows("x", "dev", {0: 0.1, 1: 0.2}), *rows("x", "test", {0: 0.1, 1: 0.3})])
    assert (row.percent, row.test, row.test_ood, row.questions) == (1, 0.3, None, 100)


def test_base_model_and_bucket_rows_take_no_part() -> None:
    base = AccuracyRow("base", None, None, None, None, "dev", None, 100, 99, 0.99)
    bucket = AccuracyRow("x", "0", 24, 0, 0.0, "dev", 4, 100, 99, 0.99)
    found = chosen([base, bucket, *rows("x", "dev", {0: 0.3, 1: 0.2})])
    assert picked(found, "cell") == [("x", 0)]
    assert chosen([base]) == []


def test_cell_without_dev_answers_is_refused() -> None:
    with refused("no accuracy on dev", place="cell x"):
        chosen(rows("x", "test", {0: 0.1}))


def test_ladder_with_a_gap_in_one_dev_split_is_refused() -> None:
    with refused("different dev splits", place="cell x"):
        chosen([*rows("x", "dev", {0: 0.1, 1: 0.2}), *rows("x", "dev_ood", {0: 0.1})])


def test_collapse_is_where_the_score_stays_below_half() -> None:
    assert collapse_percent({0: 0.6, 10: 0.61, 20: 0.29, 40: 0.31, 60: 0.1}) == 60
    assert collapse_percent({0: 0.6, 10: 0.61, 20: 0.29, 40: 0.2, 60: 0.1}) == 20
    assert collapse_percent({0: 0.6, 10: 0.3}) is None
    assert collapse_percent({0: 0.0}) is None


@relaxed
@given(st.dictionaries(st.sampled_from([0.0, 1.0, 2.5, 10.0, 60.0]), st.floats(0, 1), min_size=1))
def test_best_percent_beats_all_smaller_ones_strictly(scores: dict[float, float]) -> None:
    best = best_percent(scores)
    assert all(
        scores[p] < scores[best] if p < best else scores[p] <= scores[best] for p in scores if p != best
    )
