"""Geometry of hidden states in a survey: its steps, tables and section."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from sftlab.studies.survey.about import About
from sftlab.studies.survey.compare import Comparison, compare
from sftlab.studies.survey.measures import (
    GEOMETRY,
    STATES,
    geometry_rows_schema,
    read_measures,
    state_map_rows_schema,
)
from sftlab.studies.survey.report import geometry_figures
from sftlab.studies.survey.report.geometry_sections import geometry, states
from sftlab.studies.survey.score_table import read_scores
from tests.support import survey_tables as planted
from tests.support.refusals import refused
from tests.unit.studies.survey.test_plan import ids, plan


def test_bases_and_models_of_one_group_are_measured_on_prompts_of_its_sets() -> None:
    measured = plan("measure.geometry={prompts: 20}")
    assert set(measured.measured.geometry_sets) == {"facts-short", "sums-steps", "chatty"}
    assert len(measured.measured.geometries) == 2 + 6
    assert measured.measured.state_maps == {}
    second = plan("measure.geometry.prompts=20", "measure.geometry.group=1")
    assert set(second.measured.geometries) == {"a", "a-facts-short-n40-lora-e1"}
    costs = [cost.scored_texts for step, cost in measured.steps() if step.stage == "geometry"]
    assert costs == [3 * 20] * 8


def test_pictures_are_of_the_named_bases_and_move_no_other_step() -> None:
    plain, drawn = (
        plan("measure.geometry={prompts: 20}"),
        plan("measure.geometry={prompts: 20, pictures: [a2]}"),
    )
    assert set(drawn.measured.state_maps) == {
        "a2",
        *(f"a2-{data}-n40-full-e1" for data in ("facts-short", "sums-steps", "chatty")),
    }
    assert drawn.measured.geometries == plain.measured.geometries
    moved = {step.stage for step, _ in drawn.steps() if step.id not in ids(plain)}
    assert moved == {"geometry", "survey-results", "survey-report"}
    with refused(r"measure\.geometry\.pictures: unknown 'b'; known are a, a2"):
        plan("measure.geometry={prompts: 20, pictures: [b]}")


def test_group_of_mixtures_has_no_sets_to_take_prompts_from() -> None:
    with refused(r"measure\.geometry\.group: 0 has no runs on single sets"):
        plan("measure.geometry.prompts=20", "runs.0.data=all")


def rows() -> list[dict[str, object]]:
    """Two bases of two and of four layers: tuning adds 1 to the dimension, and clusters of the last layer split."""
    found: list[dict[str, object]] = []
    for model, layers in (("m0", 2), ("m1", 4)):
        for data in ("base", "good", "bad"):
            tuned = data != "base"
            run = {
                "model": model,
                "data": data,
                "method": "full" if tuned else "",
                "size": 1000 if tuned else None,
                "epoch": 3.0 if tuned else None,
                "schedule": "",
            }
            for layer in range(layers):
                last = layer == layers - 1
                found.append(
                    {
                        **run,
                        "layer": layer,
                        "layers": layers,
                        "points": 80,
                        "dimensions": [9.0, 8.0, 7.0, 6.0, 5.0 + tuned, 4.0],
                        "clusters": 4 + 4 * (tuned and last),
                        "ari": None if layer == 0 else 0.5,
                        "consistency": [
                            {"label": "good", "share": 0.5 + 0.25 * tuned},
                            {"label": "bad", "share": 0.25},
                        ],
                    }
                )
    return found


def points() -> list[dict[str, object]]:
    """One base and one model tuned from it, with three prompts of each of two sets."""
    run = {"model": "m0", "size": 1000, "epoch": 3.0, "schedule": ""}
    return [
        {**run, "data": data, "method": method, "label": label, "x": float(n), "y": -1.5}
        for data, method in (("base", ""), ("good", "full"))
        for label in ("good", "bad")
        for n in range(3)
    ]


@pytest.fixture(scope="module")
def compared(tmp_path_factory: pytest.TempPathFactory) -> Comparison:
    folder: Path = tmp_path_factory.mktemp("geometry")
    pq.write_table(pa.Table.from_pylist(rows(), schema=geometry_rows_schema()), folder / GEOMETRY)
    pq.write_table(pa.Table.from_pylist(points(), schema=state_map_rows_schema()), folder / STATES)
    table = read_scores(planted.write(folder / "scores.csv", planted.rows()))
    return compare(table, About(), measures=read_measures(folder))


def test_each_layer_of_each_base_is_next_to_the_mean_of_its_tuned_models(compared: Comparison) -> None:
    layers = {(row["model"], row["layer"]): row for row in compared.tables["geometry_layers"]}
    assert len(layers) == 6
    last = layers["m1", 3]
    assert (last["position"], last["tuned_models"]) == (0.875, 2)
    assert (last["dimension_base"], last["dimension_tuned"]) == (5.0, 6.0)
    assert (last["clusters_base"], last["clusters_tuned"]) == (4.0, 8.0)
    assert last["consistency_tuned"] == pytest.approx((0.75 + 0.25) / 2)


def test_differences_by_position_are_means_over_bases_with_intervals(compared: Comparison) -> None:
    found = [row for row in compared.tables["geometry"] if row["quantity"] == "dimension"]
    assert len(found) == 20
    assert {(row["difference"], row["low"], row["high"], row["bases"]) for row in found} == {
        (1.0, 1.0, 1.0, 2)
    }
    ari = [row["position"] for row in compared.tables["geometry"] if row["quantity"] == "ari"]
    assert min(ari) >= 0.75  # the first layer of two lacks it, up to the middle of the last one
    clusters = [row for row in compared.tables["geometry"] if row["quantity"] == "clusters"]
    assert (clusters[0]["tuned"], clusters[-1]["tuned"]) == (4.0, 8.0)


def test_last_layer_has_consistency_by_set_and_dimension_by_scale(compared: Comparison) -> None:
    assert compared.tables["geometry_consistency"] == [
        {"data": "good", "share_base": 0.5, "share_tuned": 0.75},
        {"data": "bad", "share_base": 0.25, "share_tuned": 0.25},
    ]
    scales = compared.tables["geometry_scales"]
    assert [row["neighbour"] for row in scales] == [1, 2, 4, 8, 16, 32]
    assert (scales[4]["base"], scales[4]["tuned"]) == (5.0, 6.0)


def test_section_compares_base_and_tuned_models(compared: Comparison) -> None:
    section = geometry(compared)
    assert section is not None
    assert (
        "dimension 5.00 in base models and 6.00 in tuned ones, a difference of +1.00 [+1.00, +1.00]"
        in section.see
    )
    assert len(section.figures) == 4
    assert len(section.tables) == 3


def test_states_are_a_picture_a_model_and_a_table_of_all_prompts(
    compared: Comparison, monkeypatch: pytest.MonkeyPatch
) -> None:
    table = compared.tables["state_map"]
    assert len(table) == 12
    assert table[11] == {
        "model": "m0",
        "trained_on": "good",
        "method": "full",
        "prompt_of": "bad",
        "x": 2.0,
        "y": -1.5,
    }
    section = states(compared)
    assert section is not None and section.data == ("state_map",)
    assert len(section.figures) == 1 + 2
    assert "m0 (base)" in section.figures[1] and "m0, good" in section.figures[2]
    assert "has at most" not in section.see
    monkeypatch.setattr("sftlab.studies.survey.report.geometry_sections.MOST_DRAWN", 4)
    monkeypatch.setattr(geometry_figures, "MOST_DRAWN", 4)
    fewer = states(compared)
    assert fewer is not None and fewer.see.endswith("A picture has at most 4 of 6 states.")
    assert section.figures[1].count("<use") == 6 and fewer.figures[1].count("<use") == 3


def test_survey_without_pictures_has_no_such_section(compared: Comparison) -> None:
    assert states(replace(compared, tables={**compared.tables, "state_map": []})) is None
