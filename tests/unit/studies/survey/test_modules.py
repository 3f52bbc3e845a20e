"""Change of weights by module and at one position, against gains."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from sftlab.analysis.layers import at_position
from sftlab.studies.survey.about import About
from sftlab.studies.survey.compare import Comparison, compare
from sftlab.studies.survey.measures import MOVEMENT, movement_rows_schema, read_measures
from sftlab.studies.survey.report.measured_sections import layers
from sftlab.studies.survey.score_table import read_scores
from tests.support import survey_tables as planted

# Of a layer the relative change of attn.q by set; `good` moves it least and gains most.
CHANGE = {"good": 0.1, "neutral": 0.2, "odd": 0.2, "bad": 0.4}


def rows() -> list[dict[str, Any]]:
    found = []
    for model, depth in (("m0", 2), ("m1", 4), ("m2", 2)):
        for data, change in CHANGE.items():
            run = {"model": model, "data": data, "method": "full", "size": 1000, "epoch": 3.0, "schedule": ""}
            parts = [(layer, "attn.q", change) for layer in range(depth)]
            parts += [(layer, "mlp.up", 2 * change if layer else change) for layer in range(depth)]
            parts += [(None, "norm", 0.01), *([(None, "lm_head", 0.5 - change)] if model != "m2" else [])]
            found += [
                {
                    **run,
                    "layer": layer,
                    "module": module,
                    "weights": 10,
                    "changed": 10,
                    "squared_change": relative**2 * 4.0,
                    "squared_base": 4.0,
                }
                for layer, module, relative in parts
            ]
    return found


@pytest.fixture(scope="module")
def compared(tmp_path_factory: pytest.TempPathFactory) -> Comparison:
    folder: Path = tmp_path_factory.mktemp("modules")
    pq.write_table(pa.Table.from_pylist(rows(), schema=movement_rows_schema()), folder / MOVEMENT)
    table = read_scores(planted.write(folder / "scores.csv", planted.rows(models=planted.MODELS[:3])))
    return compare(table, About(), measures=read_measures(folder))


def test_value_at_a_position_is_interpolated_between_the_layers() -> None:
    # Two layers are at 1/4 and 3/4.
    assert at_position([[1.0, 2.0], [4.0, 4.0]], 0.6) == pytest.approx([1.7, 4.0])
    assert at_position([1.0, 2.0], 0.9) == pytest.approx(2.0)


def test_change_of_a_module_is_that_of_all_its_layers(compared: Comparison) -> None:
    found = {(row["model"], row["part"]): row for row in compared.tables["modules"]}
    assert found["m0", "attn.q"]["relative_change"] == pytest.approx(np.mean(list(CHANGE.values())))
    both = np.sqrt((1 + 4) / 2)  # of two layers of equal weights that move by 1 and 2
    assert found["m0", "mlp.up"]["relative_change"] == pytest.approx(both * np.mean(list(CHANGE.values())))
    assert found["m0", "final norm"]["relative_change"] == pytest.approx(0.01)


def test_r_of_a_module_is_over_the_sets_of_a_base(compared: Comparison) -> None:
    found = {(row["model"], row["part"]): row for row in compared.tables["modules"]}
    gains = {row["data"]: [] for row in compared.tables["gains"]}
    for row in compared.tables["gains"]:
        if row["model"] == "m1":
            gains[row["data"]].append(row["standardised"])
    means = [np.mean(gains[name]) for name in CHANGE]
    expected = np.corrcoef(list(CHANGE.values()), means)[0, 1]
    assert found["m1", "attn.q"]["r_with_gain"] == pytest.approx(expected) and expected < -0.5
    assert found["m1", "lm_head"]["r_with_gain"] == pytest.approx(-expected)
    assert np.isnan(found["m1", "final norm"]["r_with_gain"])  # every set moves it alike
    assert found["m1", "attn.q"]["null_low"] is None


def test_means_are_of_parts_that_all_bases_have_with_a_null(compared: Comparison) -> None:
    means = {row["part"]: row for row in compared.tables["modules"] if row["model"] == "mean of all models"}
    assert set(means) == {"attn.q", "mlp.up", "final norm", "position 0.6"}
    row = means["attn.q"]
    assert row["null_low"] < 0 < row["null_high"] and row["r_with_gain"] < -0.5


def test_points_of_figure_5b_are_sets_under_bases(compared: Comparison) -> None:
    points = {(row["model"], row["data"]): row for row in compared.tables["layer_points"]}
    assert len(points) == 3 * 4
    first, last = 0.1, 0.1 * np.sqrt((1 + 4) / 2)  # of the layers of `good`, over attn.q and mlp.up
    assert points["m0", "good"]["relative_change"] == pytest.approx(
        first + (last - first) * (0.6 - 0.25) / 0.5
    )
    assert points["m0", "good"]["standardised_gain"] > points["m0", "bad"]["standardised_gain"]


def test_section_has_the_figures_and_tables_of_modules(compared: Comparison) -> None:
    section = layers(compared)
    assert section is not None and section.data == (
        "layers",
        "layers_by_model",
        "layer_points",
        "modules",
    )
    assert len(section.figures) == 4
    (table,) = section.tables
    assert table.columns == ["change", "r, mean of bases", "shuffled sets", "r, m0", "r, m1", "r, m2"]
    assert [row.heading for row in table.rows][:3] == ["attn.q", "final norm", "lm_head"]
    bare = layers(replace(compared, tables={**compared.tables, "modules": [], "layer_points": []}))
    assert bare is not None and len(bare.figures) == 2 and bare.tables == []


def test_r_by_position_is_of_each_base_and_pooled_over_all_bases_and_sets(compared: Comparison) -> None:
    by_model = {(row["model"], row["position"]): row for row in compared.tables["layers_by_model"]}
    assert len(by_model) == 3 * 20
    gains = {(row["model"], row["data"]): row["standardised_gain"] for row in compared.tables["layer_points"]}
    first = [CHANGE[data] for data in CHANGE]  # of layer 0, in all modules alike
    means = [gains["m0", data] for data in CHANGE]
    assert by_model["m0", 0.025]["r_with_gain"] == pytest.approx(np.corrcoef(first, means)[0, 1])
    every = [(CHANGE[data], gains[model, data]) for model in ("m0", "m1", "m2") for data in CHANGE]
    row = compared.tables["layers"][0]
    assert row["r_pooled"] == pytest.approx(np.corrcoef(np.array(every).T)[0, 1])
    mean = np.tanh(np.mean([np.arctanh(by_model[m, 0.025]["r_with_gain"]) for m in ("m0", "m1", "m2")]))
    assert row["r_with_gain"] == pytest.approx(mean)
