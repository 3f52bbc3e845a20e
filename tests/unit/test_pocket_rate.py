"""The choice of the pocket's learning rate: from a table of accuracies, by dev alone."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pytest
from benchmarks.pocket_rate import DEV, RATES, TEST, chosen, of_size, scores_of, sweep_file, table

from sftlab.studies.load import load_sweep

# By rate and training set: dev, dev_ood, test, test_ood.
MEASURED = {
    (0.001, "a"): (0.3, 0.5, 0.1, 0.1),
    (0.001, "b"): (0.5, 0.7, 0.1, 0.3),
    (0.01, "a"): (0.2, 0.2, 0.9, 0.9),
    (0.01, "b"): (0.4, 0.4, 0.9, 0.9),
}


def accuracies() -> pa.Table:
    rows = []
    for (rate, cell), values in MEASURED.items():
        for split, accuracy in zip((*DEV, *TEST), values, strict=True):
            whole = {
                "variant": f"restore learning_rate={rate:g}",
                "cell": cell,
                "percent": 0.0,
                "split": split,
            }
            rows.append(whole | {"bucket": None, "accuracy": accuracy})
            rows.append(whole | {"bucket": 4, "accuracy": 1.0})
    base = {"variant": "restore learning_rate=0.001", "cell": "base", "percent": None, "split": "dev"}
    return pa.Table.from_pylist([*rows, base | {"bucket": None, "accuracy": 1.0}])


def test_the_rate_with_the_best_mean_of_both_dev_splits_is_chosen_and_test_is_shown() -> None:
    dev, test = (scores_of(accuracies(), splits) for splits in (DEV, TEST))
    assert dev[0.001] == pytest.approx({"a": 0.4, "b": 0.6}) and dev[0.01] == pytest.approx(
        {"a": 0.2, "b": 0.4}
    )
    assert chosen(dev) == 0.001
    # The differences are -0.2 and -0.2, without any spread.
    assert table(dev, test)[2:] == [
        "| 0.001 | 2 | 50.0 % | chosen | 15.0 % |",
        "| 0.01 | 2 | 30.0 % | -20.0 (-20.0 to -20.0) | 90.0 % |",
    ]


def test_of_equal_rates_the_smaller_one_is_chosen() -> None:
    assert chosen({0.01: {"a": 0.5}, 0.001: {"a": 0.5}, 0.1: {"a": 0.4}}) == 0.001


def test_the_sweep_is_one_of_four_rates_without_restoration(tmp_path: Path) -> None:
    file = tmp_path / "sweep.yaml"
    file.write_text(sweep_file(2))
    sweep, study = load_sweep(file)
    assert (sweep.axes.learning_rate, sweep.axes.percent, sweep.axes.seed) == (RATES, (0,), (0, 1))
    assert study.name == "pocket"


def test_scores_of_a_size_are_those_of_its_training_sets_at_every_rate() -> None:
    scores = {0.001: {"bucket0-n25-s0": 0.1, "bucket0-n100-s0": 0.4}, 0.003: {"bucket0-n25-s0": 0.2}}
    assert of_size(scores, 25) == {0.001: {"bucket0-n25-s0": 0.1}, 0.003: {"bucket0-n25-s0": 0.2}}
    assert of_size(scores, 100) == {0.001: {"bucket0-n100-s0": 0.4}, 0.003: {}}
