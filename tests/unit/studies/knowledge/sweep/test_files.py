"""What is wrong in a sweep file is told by file, field and expected form, never in the names of inner types."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from sftlab.config.messages import explained
from sftlab.errors import UserError
from sftlab.studies.knowledge.sweep.spec import SweepSpec
from sftlab.studies.load import load_runtime, load_study, load_sweep
from tests.support.refusals import refused

TINY = Path(__file__).parents[5] / "jobs" / "configs" / "tiny.yaml"
INNER = re.compile(r"function-|tuple\[|literal\[|constrained|union\[|Range\]|instance of|valid tuple")
DATA = r"such as \[0, 3, mixed, '0:0.5\+4:0.5'\]"


def told(tmp_path: Path, fields: dict[str, Any]) -> str:
    path = tmp_path / "own.yaml"
    path.write_text(yaml.safe_dump({"name": "s", "study": str(TINY), **fields}))
    with pytest.raises(UserError) as error:
        load_sweep(path)
    return str(error.value).replace(str(path), "FILE")


@pytest.mark.parametrize(
    ("axes", "message"),
    [
        (
            {"data": [7]},
            r"FILE: axes\.data\.0: training set '7': is none; expected a bucket 0 to 4.*\(found 7\)$",
        ),
        ({"data": [0, [1]]}, rf"FILE: axes\.data\.1: expected a list.*{DATA}.*\(found \[1\]\)$"),
        ({"data": "foo"}, rf"FILE: axes\.data: expected a list.*{DATA}, or mixture.*\(found 'foo'\)$"),
        ({"data": {"a": 1}}, rf"FILE: axes\.data: expected a list.*{DATA}"),
        ({"data": [1.5]}, rf"FILE: axes\.data\.0: expected a list.*{DATA}.*\(found 1\.5\)$"),
        ({"data": [True]}, r"FILE: axes\.data\.0: expected a bucket 0 to 4.*\(found True\)$"),
        (
            {"data": ["0:0.5+4:0.4"]},
            r"FILE: axes\.data\.0: .*the shares add up to 0\.9; they must add up to 1",
        ),
        ({"data": []}, r"FILE: axes\.data: expected at least 1 item \(found \[\]\)$"),
        ({"percent": [0, 120]}, r"FILE: axes\.percent\.1: .*100; expected a ladder such as \[0, 10, 40\]"),
        ({"percent": [-1]}, r"FILE: axes\.percent\.0: .*equal to 0; expected a ladder"),
        ({"percent": [0, 5, 5]}, r"FILE: axes\.percent: 5 is listed twice; list each percentage once"),
        ({"percent": "x"}, r"FILE: axes\.percent: expected a ladder .* such as \{low: 0, high: 40\}"),
        ({"percent": {"low": 3}}, r"FILE: axes\.percent\.high: is required\.$"),
        ({"percent": {"low": 0, "high": 101}}, r"FILE: axes\.percent: the range 0 to 101 leaves 0 to 100"),
        ({"learning_rate": 0.1}, r"FILE: axes\.learning_rate: expected a list such as"),
        ({"learning_rate": {"low": 0, "high": 1}}, r"FILE: axes\.learning_rate: the range begins at 0"),
        ({"percent": {"low": 9, "high": 1}}, r"FILE: axes\.percent: low \(9\) must lie below high \(1\)"),
        (
            {"learning_rate": {"low": 1, "hgih": 2}},
            r"unknown key 'axes\.learning_rate\.hgih'; did you mean 'high'\?",
        ),
        ({"strategy": "restore"}, r"FILE: axes\.strategy: expected a list of strategies, such as \[restore"),
        ({"strategy": 3}, r"FILE: axes\.strategy: expected a list of strategies"),
        ({"strategy": [3]}, r"FILE: axes\.strategy\.0: expected keys with values"),
        ({"strategy": [{"nme": "restore"}]}, r"FILE: axes\.strategy\.0\.name: is required\.$"),
        ({"seed": ["a"]}, r"FILE: axes\.seed\.0: .*valid integer"),
        ({"size": [0]}, r"FILE: axes\.size\.0: .*a whole number of at least 1, or all"),
    ],
)
def test_a_wrong_axis_is_one_line_with_field_and_form(
    tmp_path: Path, axes: dict[str, Any], message: str
) -> None:
    text = told(tmp_path, {"axes": axes})
    assert re.search(message, text, re.MULTILINE), text
    assert not INNER.search(text), text
    assert len(text.splitlines()) == (2 if "hgih" in str(axes) else 1)


@pytest.mark.parametrize("metric", [None, "", "bleu", 3])
def test_a_search_without_a_metric_that_some_stage_makes_is_told_the_known_ones(
    tmp_path: Path, metric: object
) -> None:
    text = told(tmp_path, {"search": {"kind": "optuna", "trials": 3, "metric": metric}})
    assert "FILE: search.metric: " in text
    assert metric == 3 or "dev, dev_in_domain, dev_out_of_domain" in text


def test_study_files_are_told_alike() -> None:
    with refused("expected a bucket 0 to 4.*found True", place="buckets.0"):
        load_study(TINY, ["training_sets.buckets=[yes]"])
    with refused(r"expected a list, such as \[a, b\]", place="restore.percents", value="x"):
        load_study(TINY, ["restore.percents=x"])
    with pytest.raises(UserError, match=r"sft\.lora\.rank: .*valid integer"):
        load_study(TINY, ["sft.lora={rank: a}"])
    with pytest.raises(UserError, match=r"runtime\.engine|engine: expected keys with values"):
        load_runtime(None, ["runtime.engine=3"])


def test_a_wrong_value_is_shown_cut_short(tmp_path: Path) -> None:
    text = told(tmp_path, {"axes": {"data": "x" * 5000}})
    assert text.endswith("...)") and len(text) < 600


def test_a_key_of_the_study_is_told_with_its_prefix(tmp_path: Path) -> None:
    path = tmp_path / "own.yaml"
    path.write_text(yaml.safe_dump({"name": "s", "study": str(TINY)}))
    with refused("'sft' is", place="--set sft.seed=3", value="sft", advice=r"use --set set\.sft\.seed=3"):
        load_sweep(path, ["sft.seed=3"])


def test_two_errors_of_two_axes_are_two_lines() -> None:
    from pydantic import ValidationError

    document = {"name": "s", "study": "t", "axes": {"data": 3, "percent": [120]}}
    with pytest.raises(ValidationError) as error:
        SweepSpec.model_validate(document)
    lines = explained(SweepSpec, document, error.value)
    assert [found.keys for found in lines] == [("axes", "data"), ("axes", "percent", 0)]


def test_an_option_of_a_sweep_is_named_for_what_it_brought_into_the_sweep_or_its_study(
    tmp_path: Path,
) -> None:
    path = tmp_path / "own.yaml"
    path.write_text(yaml.safe_dump({"name": "s", "study": str(TINY), "set": {"sft": {"seed": 1}}}))
    for option, message in [
        ("axis.size=[5]", "--set axis.size: unknown key 'axis'"),
        ("set.sft.epoch=3", "--set set.sft.epoch: unknown key 'sft.epoch'"),
    ]:
        with pytest.raises(UserError) as error:
            load_sweep(path, [option])
        assert str(error.value).startswith(message), error.value


def test_an_unknown_strategy_is_told_with_the_nearest_and_all_known_ones(tmp_path: Path) -> None:
    from sftlab.strategies import known_strategies
    from sftlab.studies.knowledge.sweep.trials import TrialMaker

    path = tmp_path / "own.yaml"
    axes = {"strategy": ["restroe"]}
    path.write_text(yaml.safe_dump({"name": "s", "study": str(TINY), "axes": axes}))
    with refused("'restroe' is unknown", value="restroe", advice="did you mean 'restore'") as error:
        list(TrialMaker(*load_sweep(path)).grid())
    assert all(name in str(error.value) for name in known_strategies())


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        (
            {"axes": {"size": list(range(1, 301)), "seed": list(range(1000))}},
            r"FILE: comes to 4,500,000 models",
        ),
        ({"axes": {"seed": list(range(1001))}}, r"axes\.seed: lists 1,001 values; list at most 1,000"),
        (
            {"axes": {"learning_rate": [r / 1e4 for r in range(1, 1002)]}},
            r"axes\.learning_rate: lists 1,001 values",
        ),
        ({"search": {"kind": "random", "trials": 10**9}}, r"comes to [\d,]+ models to evaluate"),
    ],
)
def test_a_small_file_of_more_models_than_can_be_planned_is_refused_at_once(
    tmp_path: Path, fields: dict[str, Any], message: str
) -> None:
    assert re.search(message, told(tmp_path, fields))


def test_a_study_of_more_models_than_can_be_planned_is_refused_at_once() -> None:
    grid = [f"training_sets.{key}={list(range(1, n + 1))}" for key, n in (("sizes", 40), ("seeds", 500))]
    with pytest.raises(UserError, match=r"comes to \d,\d+,\d+ models .* at most 200,000 can be planned"):
        load_study(TINY, [*grid, "training_sets.buckets=[0,1,2,3,4]", f"restore.percents={list(range(30))}"])


def test_a_sweep_over_its_limits_touches_nothing(tmp_path: Path) -> None:
    import sys

    from sftlab.execution.progress import SilentProgress
    from sftlab.execution.runtime import Runtime
    from sftlab.store.artifact import Store
    from sftlab.studies.knowledge.sources import resolve
    from sftlab.studies.knowledge.sweep.run import run_sweep
    from sftlab.studies.knowledge.sweep.sweep import Sweep

    path = tmp_path / "own.yaml"
    axes = {"data": [0, 4], "size": [2], "seed": [0]}
    document = {"name": "s", "study": str(TINY), "axes": axes, "limits": {"max_cells": 1}}
    path.write_text(yaml.safe_dump(document))
    spec, study = load_sweep(path)
    store = tmp_path / "store"
    sweep = Sweep(spec, study, resolve(study, store), Store(store), Runtime(), SilentProgress())
    loaded = "ray" in sys.modules
    with refused(r"nothing has run\. limits\.max_cells is 1, and the sweep plans 2", value="s"):
        run_sweep(sweep)
    assert not store.exists() and ("ray" in sys.modules) == loaded
