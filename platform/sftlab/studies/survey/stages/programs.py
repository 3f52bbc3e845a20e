"""Programming problems in a survey: what is asked, and the verdicts of the sandbox on what models wrote."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from os import cpu_count
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sftlab.datasets.code_file import Problem, problem_rows, problem_schema, read_problems
from sftlab.store.tables import read_table
from sftlab.studies.survey.build import SurveyBuild
from sftlab.studies.survey.stages.requests import GENERATED, QUESTIONS

if TYPE_CHECKING:
    from sftlab.inference.measurement import Measurement

PROBLEMS = "problems.parquet"
MOST_AT_ONCE = 8  # programs


def build_problems(build: SurveyBuild, name: str) -> None:
    """Write the problems of a file, and list them as questions."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    from sftlab.measurements.benchmarks import question_schema

    file, step = build.plan.spec.benchmarks.programs[name], build.plan.questions[name]
    problems = read_problems(file.source, file.questions, file.seed)
    folder = build.path(step)
    folder.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_pylist(problem_rows(problems), schema=problem_schema()), folder / PROBLEMS)
    listed = [
        {
            "question_id": one.question_id,
            "question": one.question,
            "accepted": [],
            "metric": "code",
            "choices": [],
        }
        for one in problems
    ]
    pq.write_table(pa.Table.from_pylist(listed, schema=question_schema()), folder / QUESTIONS)
    build.commit(step)


def read_committed(build: SurveyBuild, name: str) -> list[Problem]:
    """The committed problems of a benchmark."""
    table = read_table(build.read(build.plan.questions[name], PROBLEMS), problem_schema())
    return [Problem(**row) for row in table.to_pylist()]


def program_measurements(
    build: SurveyBuild, name: str, problems: Sequence[Problem]
) -> dict[str, Measurement]:
    """By file what is asked of a model."""
    from sftlab.datasets.conversations import question
    from sftlab.measurements.generations import Asked, Generations

    longest = build.plan.max_tokens(name)
    rows = [Asked(one.question_id, question(one.question), (), longest) for one in problems]
    return {GENERATED: Generations(rows, build.plan.spec.template)}


def write_verdicts(build: SurveyBuild, problems: Sequence[Problem], folder: Path, file: str) -> None:
    """Run what a model wrote, and write a table of answers: right is what passes, in form is what parses."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    from sftlab.measurements.benchmarks import benchmark_answer_schema
    from sftlab.measurements.generations import generation_schema
    from sftlab.measurements.sandbox import Limits, run_program

    code = build.plan.spec.benchmarks.code
    assert code is not None and code.allow, "check() refuses a survey that does not allow it"
    limits = Limits(code.seconds, code.memory_mib)
    rows = read_table(folder / GENERATED, generation_schema()).to_pylist()

    def judged(pair: tuple[Problem, dict[str, Any]]) -> dict[str, Any]:
        problem, row = pair
        if row["error"] is not None:
            return {"question_id": problem.question_id, "tokens": 0, "error": row["error"]}
        ran = run_program(problem.program(row["text"]), problem.test, limits)
        return {
            "question_id": problem.question_id,
            "answer": row["text"],
            "score": float(ran.passed),
            "in_form": ran.parsed,
            "tokens": row["tokens"],
        }

    with ThreadPoolExecutor(min(MOST_AT_ONCE, cpu_count() or 1)) as pool:
        answers = list(pool.map(judged, zip(problems, rows, strict=True)))
    pq.write_table(pa.Table.from_pylist(answers, schema=benchmark_answer_schema()), folder / file)
