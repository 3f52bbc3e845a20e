"""The best model of a base: chosen on half of the questions, judged on the other half."""

from __future__ import annotations

import pytest

from sftlab.studies.survey.champions import DEV, Choice, Scored, choose, dev_questions, judge, spreads


def row(model: str, benchmark: str, dev: float | None, test: float | None, base: str = "a") -> Scored:
    known = [value for value in (dev, test) if value is not None]
    return Scored(base, model, benchmark, sum(known) / len(known), 1.0, dev, test)


ROWS = [
    row("a", "sums", 0.2, 0.2),
    row("x", "sums", 0.6, 0.2),
    row("y", "sums", 0.4, 0.8),
    row("a", "moods", 0.5, 0.5),
    row("x", "moods", 0.5, 0.5),
    row("y", "moods", 0.6, 0.5),
]


def test_halves_have_as_many_questions_and_depend_on_nothing_but_ids() -> None:
    ids = [f"sums-{number}" for number in range(21)]
    dev = dev_questions(ids)
    assert len(dev) == 10 and dev < set(ids)
    assert dev_questions(reversed(ids)) == dev


def test_one_question_chooses_nothing() -> None:
    assert dev_questions(["only"]) == frozenset()


def test_spread_is_that_of_the_tuned_models_gains() -> None:
    # gains on dev: sums 0.4 and 0.2, moods 0 and 0.1; the population deviation of two is half their distance
    assert spreads(ROWS, DEV) == pytest.approx({"sums": 0.1, "moods": 0.05})


def test_choice_is_the_largest_mean_gain_on_dev_whatever_test_says() -> None:
    # x: (0.4 / 0.1 + 0) / 2 = 2; y: (0.2 / 0.1 + 0.1 / 0.05) / 2 = 2
    assert choose(ROWS) == [Choice("a", "x", pytest.approx(2.0), 1)]
    assert [(found.model, found.ties) for found in choose(ROWS[:3])] == [("x", 0)]


def test_benchmark_on_which_all_gains_are_equal_takes_no_part() -> None:
    flat = [row(model, "flat", 0.3, 0.3) for model in ("a", "x", "y")]
    assert choose([*ROWS, *flat]) == choose(ROWS)
    assert choose(flat) == []


def test_each_base_has_its_best_model() -> None:
    other = [row("b", "sums", 0.0, 0.0, "b"), row("z", "sums", 0.1, 0.0, "b")]
    assert [found.base for found in choose([*ROWS, *other])] == ["a", "b"]


def test_judgement_is_the_mean_over_benchmarks_with_an_interval_around_it() -> None:
    found = judge(
        {"sums": [1.0, 0.0, 1.0, 0.0], "moods": [0.5], "flat": [1.0]}, {"sums": 0.5, "moods": 0.25}, 0
    )
    assert found is not None
    assert found.gain == pytest.approx((0.5 / 0.5 + 0.5 / 0.25) / 2)
    assert found.questions == 5
    # the four sums resample to 0, 1/4 ... 1 in their mean; the single mood does not vary
    assert 1.0 <= found.low < found.gain < found.high <= 2.0
    assert judge({"flat": [1.0]}, {}, 0) is None
