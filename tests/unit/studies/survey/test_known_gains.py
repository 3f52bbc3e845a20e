"""What the surveys of a store say about gains."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from sftlab.store.artifact import Store
from sftlab.store.record import Step
from sftlab.studies.survey.known_gains import known_gains
from sftlab.studies.survey.measures import PERPLEXITY, perplexity_schema
from sftlab.studies.survey.stages.results import ABOUT, SCORES
from tests.support import survey_tables

MODELS = survey_tables.MODELS[:3]


def commit(
    store: Store, slug: str, inputs: Sequence[str], models: Sequence[str] = MODELS, perplexity: bool = True
) -> None:
    """A survey's results with planted gains; response perplexity e^1, e^2 ... by set, and 10 tokens a response."""
    step = Step("survey-results", slug, {}, {name: name for name in inputs})
    folder = store.path(step)
    folder.mkdir(parents=True)
    survey_tables.write(folder / SCORES, survey_tables.rows(models=models))
    (folder / ABOUT).write_text(json.dumps({"models": {}, "data": {}, "benchmarks": {}}))
    rows = [
        {
            "model": model,
            "data": data,
            "size": 1000,
            "response": float(np.exp(n)),
            "tokens": 10.0,
            "errors": 0,
        }
        for model in models
        for n, data in enumerate(survey_tables.SETS, start=1)
    ]
    if perplexity:
        pq.write_table(pa.Table.from_pylist(rows, schema=perplexity_schema()), folder / PERPLEXITY)
    store.commit(step)


def test_gains_and_predictors_of_every_survey_are_rows(tmp_path: Path) -> None:
    store = Store(tmp_path)
    commit(store, "one", ["a"])
    found = known_gains(store)
    assert found.surveys == ("one",) and found.left_out == ()
    assert len(found.known.gains) == 3 * 4
    assert found.known.models[0] == "one/m0" and found.known.sets[:4] == [
        f"one/{name}" for name in survey_tables.SETS
    ]
    assert found.known.predictors[:4] == pytest.approx(np.array([[n, np.log(10)] for n in (1, 2, 3, 4)]))
    by_set = dict(zip(found.known.sets[:4], found.known.gains[:4], strict=True))
    assert by_set["one/good"] > by_set["one/neutral"] > by_set["one/bad"]


def test_of_a_survey_that_has_grown_the_largest_result_counts(tmp_path: Path) -> None:
    store = Store(tmp_path)
    commit(store, "one", ["a"], MODELS[:2])
    commit(store, "one", ["a", "b"])
    commit(store, "two", ["c"], MODELS[:2])
    found = known_gains(store)
    assert found.surveys == ("one", "two")
    assert len(set(found.known.models)) == 3 + 2


def test_survey_that_says_nothing_is_named_with_the_reason(tmp_path: Path) -> None:
    store = Store(tmp_path)
    commit(store, "bare", ["a"], perplexity=False)
    commit(store, "single", ["b"], MODELS[:1])
    found = known_gains(store)
    assert found.surveys == () and not found.known.enough
    assert found.left_out[0] == "bare: has no perplexity of every set under every base"
    assert (
        found.left_out[1].startswith("single: scores.csv: ")
        and "only 1 model, 4 training sets" in found.left_out[1]
    )


def test_store_without_surveys_knows_nothing(tmp_path: Path) -> None:
    found = known_gains(Store(tmp_path / "none"))
    assert (found.surveys, found.left_out, found.known.enough) == ((), (), False)
