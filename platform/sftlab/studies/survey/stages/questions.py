"""Stage 3: the questions of the benchmarks."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sftlab.datasets.benchmark_file import read_benchmark, read_shots
from sftlab.measurements.benchmarks import question_schema
from sftlab.pocket.skill_data import benchmark
from sftlab.pocket.skills import skill_world
from sftlab.studies.survey.build import SurveyBuild
from sftlab.studies.survey.stages.programs import build_problems
from sftlab.studies.survey.stages.requests import QUESTIONS, build_requests

FILE = QUESTIONS

if TYPE_CHECKING:
    import pyarrow as pa

SHOTS = "examples.parquet"  # of a benchmark with a few-shot form


def shots_schema() -> pa.Schema:
    """Columns of the table of examples."""
    import pyarrow as pa

    return pa.schema([("question", pa.string()), ("answer", pa.string())])


def build_questions(build: SurveyBuild) -> None:
    """Write the questions of every benchmark that is missing."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    asked = build.plan.spec.benchmarks
    for name, step in build.plan.questions.items():
        if name in asked.few_shot or not build.missing(step):
            continue
        if name in asked.tasks:
            build_requests(build, name)
            continue
        if name in asked.programs:
            build_problems(build, name)
            continue
        folder = build.path(step)
        folder.mkdir(parents=True, exist_ok=True)
        pq.write_table(pa.Table.from_pylist(_rows(build, name), schema=question_schema()), folder / QUESTIONS)
        file = asked.files.get(name)
        if file is not None and file.shots:
            rows = [{"question": asked, "answer": answer} for asked, answer in read_shots(file)]
            pq.write_table(pa.Table.from_pylist(rows, schema=shots_schema()), folder / SHOTS)
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
