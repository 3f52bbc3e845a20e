"""The tables of what a survey measured on request, in the folder of its results."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sftlab.studies.survey.build import SurveyBuild
from sftlab.studies.survey.measures import (
    GEOMETRY,
    LAYER_MAPS,
    MAP,
    STATES,
    geometry_rows_schema,
    layer_map_rows_schema,
    map_schema,
    state_map_rows_schema,
)
from sftlab.studies.survey.models import Model
from sftlab.studies.survey.stages.geometry import read_geometry, read_state_map
from sftlab.studies.survey.stages.layer_maps import read_layer_map
from sftlab.studies.survey.stages.scores import read_answers, read_likelihoods

if TYPE_CHECKING:
    import pyarrow as pa

BASE = "base"


def write_measured(build: SurveyBuild, folder: Path) -> None:
    """Write the table of each measurement that the survey asks for."""
    plan = build.plan
    if plan.measured.likelihood_maps:
        _write(map_rows(build), map_schema(), folder / MAP)
    if plan.measured.layer_maps:
        _write(layer_map_rows(build), layer_map_rows_schema(), folder / LAYER_MAPS)
    if plan.measured.geometries:
        measured = [model for model in plan.models if model.name in plan.measured.geometries]
        rows = [{**run_key(model), **row} for model in measured for row in read_geometry(build, model)]
        _write(rows, geometry_rows_schema(), folder / GEOMETRY)
    if plan.measured.state_maps:
        drawn = [model for model in plan.models if model.name in plan.measured.state_maps]
        rows = [{**run_key(model), **row} for model in drawn for row in read_state_map(build, model)]
        _write(rows, state_map_rows_schema(), folder / STATES)


def _write(rows: Sequence[dict[str, Any]], schema: pa.Schema, path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    pq.write_table(pa.Table.from_pylist(list(rows), schema=schema), path)


def map_rows(build: SurveyBuild) -> list[dict[str, Any]]:
    """The log-likelihoods of every model, a row a kind of text."""
    rows: list[dict[str, Any]] = []
    for model in build.plan.models:
        values: dict[str, list[float | None]] = {}
        for row in read_likelihoods(build, build.plan.measured.likelihood_maps[model.name]):
            values.setdefault(row["key"].partition("/")[0], []).append(row["log_likelihood"])
        rows += [{**run_key(model), "text": text, "log_likelihoods": found} for text, found in values.items()]
    return rows


def layer_map_rows(build: SurveyBuild) -> list[dict[str, Any]]:
    """The scores of the swaps of all mapped models, next to those of their bases and of themselves."""
    rows: list[dict[str, Any]] = []
    bases = {model.base: model for model in build.plan.models if model.run is None}
    for model in build.plan.models:
        if model.name not in build.plan.measured.layer_maps:
            continue
        base, tuned = _scores_by_question(build, bases[model.base]), _scores_by_question(build, model)
        for row in read_layer_map(build, model):
            key = row["benchmark"], row["question_id"]
            rows.append({**run_key(model), **row, "base": base[key], "tuned": tuned[key]})
    return rows


def _scores_by_question(build: SurveyBuild, model: Model) -> dict[tuple[str, str], float | None]:
    """The scores of a model by benchmark and question."""
    found = {}
    for name, step in model.scores.items():
        answers = read_answers(build, step)
        questions, scores = answers["question_id"].to_pylist(), answers["score"].to_pylist()
        found.update({(name, question): score for question, score in zip(questions, scores, strict=True)})
    return found


def run_key(model: Model) -> dict[str, Any]:
    """The columns that identify a run."""
    run = model.run
    if run is None:
        return {
            "model": model.base,
            "data": BASE,
            "method": "",
            "size": None,
            "epoch": None,
            "schedule": "",
        }
    return {
        "model": model.base,
        "data": run.data,
        "method": run.method,
        "size": run.size,
        "epoch": model.epoch,
        "schedule": run.sft.schedule,
    }
