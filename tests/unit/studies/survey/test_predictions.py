"""Perplexity of sets before training against gains, over all benchmarks and on each of them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from sftlab.studies.survey.about import About
from sftlab.studies.survey.compare import Comparison, compare
from sftlab.studies.survey.measures import PERPLEXITY, perplexity_schema, read_measures
from sftlab.studies.survey.report.measured_sections import perplexity
from sftlab.studies.survey.score_table import read_scores
from tests.support import survey_tables as planted

RESPONSE = {"good": 2.0, "neutral": 4.0, "odd": 5.0, "bad": 20.0}


@pytest.fixture(scope="module")
def compared(tmp_path_factory: pytest.TempPathFactory) -> Comparison:
    folder: Path = tmp_path_factory.mktemp("perplexity")
    rows = [
        {
            "model": model,
            "data": data,
            "size": 1000,
            "response": value,
            "full": value + 1,
            "tokens": 9.0,
            "errors": 0,
        }
        for model in planted.MODELS[:3]
        for data, value in RESPONSE.items()
    ]
    pq.write_table(pa.Table.from_pylist(rows, schema=perplexity_schema()), folder / PERPLEXITY)
    table = read_scores(planted.write(folder / "scores.csv", planted.rows(models=planted.MODELS[:3])))
    return compare(table, About(), measures=read_measures(folder))


def test_r_on_each_benchmark_is_the_fisher_mean_over_bases(compared: Comparison) -> None:
    found = {row["benchmark"]: row for row in compared.tables["predictions_by_benchmark"]}
    assert found.keys() == set(planted.BENCHMARKS)
    logs = np.log(list(RESPONSE.values()))
    cells = {
        (row["model"], row["data"]): row["standardised"]
        for row in compared.tables["gains"]
        if row["benchmark"] == "quiz"
    }
    by_model = [
        np.corrcoef(logs, [cells[model, data] for data in RESPONSE])[0, 1] for model in planted.MODELS[:3]
    ]
    assert found["quiz"]["r"] == pytest.approx(np.tanh(np.mean(np.arctanh(by_model))))
    assert (found["quiz"]["lowest"], found["quiz"]["highest"]) == pytest.approx(
        (min(by_model), max(by_model))
    )
    assert found["quiz"]["r"] < -0.8 < found["sums"]["r"]  # `odd` adds 20 points to sums
    assert found["quiz"]["models"] == 3 and 0 < found["quiz"]["p"] < 0.3


def test_section_has_both_tables(compared: Comparison) -> None:
    section = perplexity(compared)
    assert section is not None
    assert [table.corner for table in section.tables] == ["predictor", "benchmark"]
    bare = {"predictions": [], "predictions_by_benchmark": []}
    without = perplexity(replace(compared, tables={**compared.tables, **bare}))
    assert without is not None and without.tables == []
