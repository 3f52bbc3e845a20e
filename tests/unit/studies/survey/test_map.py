"""The map of models in a survey: its steps, its tables, its section."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from sftlab.studies.survey import map_tables
from sftlab.studies.survey.about import parse_about
from sftlab.studies.survey.compare import Comparison, compare
from sftlab.studies.survey.measures import MAP, Measures, map_schema, read_measures
from sftlab.studies.survey.report.map_sections import model_map
from sftlab.studies.survey.score_table import BASE, Run, read_scores
from tests.support import survey_tables as planted
from tests.unit.studies.survey.test_plan import ids, plan

ABOUT = {"models": {name: {"family": f"family {n // 2}"} for n, name in enumerate(planted.MODELS)}}


def test_map_adds_a_step_for_each_model_and_moves_none() -> None:
    mapped = plan("measure.likelihood_map.questions=5")
    left = {step.id for step, _ in plan("measure={}").steps() if not step.stage.startswith("survey-re")}
    assert left < ids(mapped)
    added = [(step, cost) for step, cost in mapped.steps() if step.slug.endswith("-map")]
    assert {step.stage for step, _ in added} == {"scores"}
    assert len(added) == len(mapped.models) == 9
    assert {cost.scored_texts for _, cost in added} == {2 * 5 * 4}  # kinds of texts, questions, benchmarks
    assert (
        plan("measure.likelihood_map.questions=6").measured.likelihood_maps["a"].id
        != mapped.measured.likelihood_maps["a"].id
    )


@pytest.fixture(scope="module")
def measures() -> Measures:
    """Log-likelihoods that follow the base model alone, with a level of each model and text."""
    draw = np.random.default_rng(0)
    runs = [Run(model, data) for model in planted.MODELS for data in (BASE, *planted.SETS)]
    runs = [run if run.data == BASE else Run(run.model, run.data, "full", 1000, 3.0) for run in runs]
    of_base = {model: draw.normal(size=40) for model in planted.MODELS}
    values = np.array([of_base[run.model] + 0.1 * draw.normal(size=40) + draw.normal() for run in runs])
    return Measures(maps={"question": (tuple(runs), values - 20)})


@pytest.fixture(scope="module")
def compared(tmp_path_factory: pytest.TempPathFactory, measures: Measures) -> Comparison:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(map_tables, "LABELS", ("base", "family", "data", "method"))
        table = read_scores(planted.write(tmp_path_factory.mktemp("map") / "scores.csv", planted.rows()))
        return compare(table, parse_about(ABOUT, "about"), measures=measures)


def test_models_of_a_base_are_near_each_other_and_models_of_a_set_are_not(compared: Comparison) -> None:
    rows = {row["label"]: row for row in compared.tables["map_groups"]}
    assert set(rows) == {"base", "family", "data"}  # there is one method
    assert (rows["base"]["models"], rows["base"]["groups"]) == (50, 10)
    assert rows["base"]["share_nearest"] == 1.0 and rows["base"]["nearest_p"] == 0.001
    assert (rows["data"]["models"], rows["data"]["share_nearest"], rows["data"]["nearest_p"]) == (
        40,
        0.0,
        1.0,
    )
    assert rows["family"]["silhouette_p"] > 0.05
    assert rows["base"]["divergence_within"] < 0.1 * rows["base"]["divergence_between"]


def test_picture_has_every_model_and_the_section_its_numbers(compared: Comparison) -> None:
    assert len(compared.tables["map"]) == 50
    assert compared.tables["map"][0]["family"] == "family 0"
    section = model_map(compared)
    assert section is not None
    assert "of the same base in 100 %" in section.see.replace("\N{NO-BREAK SPACE}", " ")
    assert len(section.figures) == 3  # base, family, data; all tuned models have one method, size and epoch
    assert "m9&lt;b&gt;&amp;" in section.figures[0]


def test_text_that_a_model_could_not_score_is_left_out_of_the_map(tmp_path: Path) -> None:
    key = {"model": "m", "data": "base", "method": "", "size": None, "epoch": None, "schedule": ""}
    rows = [
        {**key, "text": "question", "log_likelihoods": [-1.0, None, -3.0]},
        {**key, "model": "n", "text": "question", "log_likelihoods": [-4.0, -5.0, -6.0]},
    ]
    pq.write_table(pa.Table.from_pylist(rows, schema=map_schema()), tmp_path / MAP)
    runs, values = read_measures(tmp_path).maps["question"]
    assert runs == (Run("m", BASE), Run("n", BASE))
    assert values.tolist() == [[-1.0, -3.0], [-4.0, -6.0]]
