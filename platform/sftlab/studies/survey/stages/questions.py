"""Stage 3: the questions of the benchmarks."""

from __future__ import annotations

from typing import Any

from sftlab.datasets.benchmark_file import read_benchmark
from sftlab.measurements.benchmarks import question_schema
from sftlab.pocket.skill_data import benchmark
from sftlab.pocket.skills import skill_world
from sftlab.studies.survey.build import SurveyBuild

FILE = "questions.parquet"


def build_questions(build: SurveyBuild) -> None:
    """Write the questions of every benchmark that is missing."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    for name, step in build.plan.questions.items():
        if not build.missing(step):
            continue
        folder = build.path(step)
        folder.mkdir(parents=True, exist_ok=True)
        pq.write_table(pa.Table.from_pylist(_rows(build, name), schema=question_schema()), folder / FILE)
        build.commit(step)


def _rows(build: SurveyBuild, name: str) -> list[dict[str, Any]]:
    spec = build.plan.spec
    file = spec.benchmarks.files.get(name)
    if file is not None:
        return read_benchmark(file)
    world = skill_world(spec.world.seed, spec.world.people)
    return [
        {
            "question_id": f"{name}-{number}",
            "question": row["question"],
            "accepted": [row["answer"]],
            "metric": row["metric"],
            "form": None,
            "choices": row["choices"],
            "label": row["label"],
        }
        for number, row in enumerate(benchmark(world, name, spec.benchmarks.questions))
    ]
