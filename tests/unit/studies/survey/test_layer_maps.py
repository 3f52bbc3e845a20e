"""Causal layer maps in a survey: their steps, tables and section."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from sftlab.errors import UserError
from sftlab.studies.survey.about import About
from sftlab.studies.survey.compare import Comparison, compare
from sftlab.studies.survey.measures import LAYER_MAPS, LayerMap, layer_map_rows_schema, read_measures
from sftlab.studies.survey.report.layer_sections import layer_maps
from sftlab.studies.survey.score_table import Run, read_scores
from tests.support import survey_tables as planted
from tests.unit.studies.survey.test_plan import ids, plan

SWAPS = [("only", 0), ("only", 1), ("only", -1), ("back", 0), ("back", 1), ("back", -1)]
# By swap the share of each benchmark's questions that are right; the base has 0.2 and the tuned model 0.8.
RIGHT = dict(zip(SWAPS, (0.8, 0.2, 0.2, 0.2, 0.9, 0.8), strict=True))
QUESTIONS = 40


def test_map_adds_a_step_for_each_model_of_the_named_sets_and_moves_none() -> None:
    mapped = plan("measure={layer_maps: {data: [chatty], questions: 15}}")
    left = {step.id for step, _ in plan("measure={}").steps() if not step.stage.startswith("survey-re")}
    assert left < ids(mapped)
    assert set(mapped.measured.layer_maps) == {"a-chatty-n40-full-e1", "a2-chatty-n40-full-e1"}
    costs = {step.slug: cost for step, cost in mapped.steps()}
    assert costs["a-chatty-n40-full-e1-layers"].completions == 10 * 15 * 4  # swaps, questions, benchmarks


def test_map_of_one_group_and_base_has_its_models_alone() -> None:
    settings = ("measure.layer_maps.data=[facts-short]", "measure.layer_maps.bases=[a]")
    assert set(plan(*settings).measured.layer_maps) == {"a-facts-short-n40-full-e1"}
    assert set(plan(*settings, "measure.layer_maps.group=1").measured.layer_maps) == {
        "a-facts-short-n40-lora-e1"
    }


@pytest.mark.parametrize(
    ("setting", "expected"),
    [
        ("data=[none]", "measure.layer_maps.data: unknown 'none'"),
        ("bases=[z]", "measure.layer_maps.bases: unknown 'z'"),
        ("group=3", "measure.layer_maps.group: 3; the survey has 3 groups of runs"),
    ],
)
def test_unknown_names_are_refused(setting: str, expected: str) -> None:
    with pytest.raises(UserError, match=expected):
        plan("measure.layer_maps.data=[chatty]", f"measure.layer_maps.{setting}")


def rows() -> list[dict[str, object]]:
    """A model of two layers, all of whose gain is the update of layer 0; layer 1 harms a little."""

    def score(share: float, number: int) -> float:
        return float(number % 10 < 10 * share)

    key = {"model": "m0", "data": "good", "method": "full", "size": 1000, "epoch": 3.0, "schedule": ""}
    return [
        {
            **key,
            "kind": kind,
            "part": part,
            "layers": 2,
            "benchmark": benchmark,
            "question_id": f"q{number}",
            "score": score(RIGHT[kind, part], number),
            "base": score(0.2, number),
            "tuned": score(0.8, number),
        }
        for kind, part in SWAPS
        for benchmark in ("quiz", "sums")
        for number in range(QUESTIONS)
    ]


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> LayerMap:
    folder = tmp_path_factory.mktemp("maps")
    pq.write_table(pa.Table.from_pylist(rows(), schema=layer_map_rows_schema()), folder / LAYER_MAPS)
    return read_measures(folder).layer_maps[Run("m0", "good", "full", 1000, 3.0)]


def test_table_of_swaps_is_read_by_swap_and_question(found: LayerMap) -> None:
    assert [(swap.kind, swap.part) for swap in found.swaps] == SWAPS
    assert found.scores.shape == (6, 2 * QUESTIONS) and found.layers == 2
    assert np.allclose(found.scores.mean(axis=1), list(RIGHT.values()))
    assert (found.base.mean(), found.tuned.mean()) == pytest.approx((0.2, 0.8))
    assert found.benchmarks.tolist() == [0] * QUESTIONS + [1] * QUESTIONS


@pytest.fixture(scope="module")
def compared(tmp_path_factory: pytest.TempPathFactory) -> Comparison:
    folder = tmp_path_factory.mktemp("compared")
    pq.write_table(pa.Table.from_pylist(rows(), schema=layer_map_rows_schema()), folder / LAYER_MAPS)
    table = read_scores(planted.write(folder / "scores.csv", planted.rows()))
    return compare(table, About(), measures=read_measures(folder))


def test_layer_that_carries_the_gain_and_the_one_that_harms_are_found(compared: Comparison) -> None:
    effects = {(row["kind"], row["part"]): row for row in compared.tables["layer_maps"]}
    assert effects["only", "0"]["gain"] == pytest.approx(60.0)
    assert effects["only", "0"]["gain_low"] > 40 and effects["only", "0"]["full_gain"] == pytest.approx(60.0)
    assert effects["back", "1"]["change"] == pytest.approx(10.0)
    assert effects["back", "0"]["change"] == pytest.approx(-60.0)
    assert effects["only", "outside"]["gain"] == pytest.approx(0.0)


def test_proposals_are_judged_on_questions_that_did_not_choose_them(compared: Comparison) -> None:
    freeze, restore = compared.tables["layer_proposals"]
    assert (freeze["field"], freeze["layers"], freeze["swap"]) == ("sft.freeze_layers", "1", "only-0")
    assert (restore["field"], restore["layers"], restore["swap"]) == ("restore.layers", "1", "back-1")
    # Even questions choose: of q0, q2, ... q8 is right with layer 1 put back; no odd question changes.
    assert restore["change"] == pytest.approx(0.0)
    assert freeze["questions"] == restore["questions"] == QUESTIONS


def test_section_states_the_effects_and_its_caveat(compared: Comparison) -> None:
    section = layer_maps(compared)
    assert section is not None
    assert "layer 0 alone brings +60.00" in section.see and "A swap is not a training run" in section.see
    assert len(section.figures) == 2  # no cumulative swaps were measured
    assert len(section.tables) == 2
