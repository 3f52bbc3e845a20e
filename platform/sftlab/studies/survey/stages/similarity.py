"""Part of the results: how alike the words of every training set and benchmark are (appendix G of the paper)."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from sftlab.analysis.similarity import tfidf_similarity
from sftlab.datasets.examples import conversations_of, examples_schema
from sftlab.datasets.overlap import words
from sftlab.store.record import Step
from sftlab.store.tables import read_table
from sftlab.studies.survey.build import SurveyBuild
from sftlab.studies.survey.similarity import Similarities
from sftlab.studies.survey.stages.drawn import FILE as EXAMPLES
from sftlab.studies.survey.stages.scores import read_questions

if TYPE_CHECKING:
    import pyarrow as pa

FILE = "similarity.parquet"
MOST = 1000  # examples of a set that are compared: the first ones of its draw


def similarity_schema() -> pa.Schema:
    """Columns of FILE: cosine of the mean TF-IDF vectors of a training set and a benchmark, in [0, 1]."""
    import pyarrow as pa

    names = [("data", pa.string()), ("size", pa.int64()), ("benchmark", pa.string())]
    return pa.schema([*names, ("similarity", pa.float64())])


def write_similarity(build: SurveyBuild, folder: Path) -> None:
    """Compare every set that is trained on alone with every benchmark."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    asked = {
        name: [words(text) for text in read_questions(build, name)["question"].to_pylist()]
        for name in build.plan.questions
    }
    rows = []
    for (members, size), step in build.plan.drawn.items():
        if len(members) > 1:
            continue
        texts = [words(text) for text in first_examples(build, step)]
        rows += [
            {
                "data": members[0],
                "size": size,
                "benchmark": name,
                "similarity": tfidf_similarity(texts, questions),
            }
            for name, questions in asked.items()
        ]
    pq.write_table(pa.Table.from_pylist(rows, schema=similarity_schema()), folder / FILE)


def read_similarity(build: SurveyBuild) -> Similarities:
    """The committed similarities by set, size and benchmark."""
    rows = read_table(build.read(build.plan.results, FILE), similarity_schema()).to_pylist()
    return {(row["data"], row["size"], row["benchmark"]): row["similarity"] for row in rows}


def first_examples(build: SurveyBuild, step: Step) -> list[str]:
    """The texts of the first examples of a set."""
    file = build.read(step, EXAMPLES)
    examples = conversations_of(read_table(file, examples_schema()).slice(0, MOST), str(file))
    return [" ".join(turn.text for turn in example.turns) for example in examples]
