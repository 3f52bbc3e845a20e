"""Tasks of lm-eval in a survey: their requests in place of questions, and the scores of what models answered."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sftlab.errors import UserError
from sftlab.store.tables import read_table
from sftlab.studies.survey.build import SurveyBuild

if TYPE_CHECKING:
    from sftlab.datasets.rendered import Template
    from sftlab.inference.measurement import Measurement
    from sftlab.measurements.harness import Harness, Request

QUESTIONS = "questions.parquet"
REQUESTS = "requests.parquet"
GENERATED = "generated.parquet"
CHOICES = "choices.parquet"


def build_requests(build: SurveyBuild, task: str) -> None:
    """Record what lm-eval asks for a task, once for all models, and list its questions."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    from sftlab.measurements.benchmarks import question_schema
    from sftlab.measurements.harness import request_schema

    harness, step = load(build, task), build.plan.questions[task]
    folder = build.path(step)
    folder.mkdir(parents=True, exist_ok=True)
    rows = [vars(request) for request in harness.requests]
    pq.write_table(pa.Table.from_pylist(rows, schema=request_schema()), folder / REQUESTS)
    questions = {request.question: request.text for request in reversed(harness.requests)}
    listed = [
        {"question_id": name, "question": text, "accepted": [], "metric": "lm-eval", "choices": []}
        for name, text in reversed(questions.items())
    ]
    pq.write_table(pa.Table.from_pylist(listed, schema=question_schema()), folder / QUESTIONS)
    build.commit(step)


def load(build: SurveyBuild, task: str) -> Harness:
    """A task of lm-eval with its data. Raises UserError where nothing identifies these."""
    from sftlab.measurements.harness import Harness, outside_files

    spec = build.plan.spec.benchmarks.harness
    assert spec is not None
    harness = Harness(task, spec)
    for found in harness.tasks.values() if spec.include is not None else ():
        if outside := outside_files(found, Path(spec.include or "")):
            raise UserError(
                f"task {task} reads {outside[0]}, which is not in {spec.include}",
                place="benchmarks.harness",
                expected="its data in the folder of its YAML, whose content identifies the results",
            )
    return harness


class Tasks:
    """The tasks of a survey: what models are asked for each, and its scores. A task is loaded when it is scored."""

    def __init__(self, build: SurveyBuild) -> None:
        from sftlab.measurements.harness import request_schema, requests_of

        self.build = build
        self.requests: dict[str, list[Request]] = {}
        self._loaded: dict[str, Harness] = {}
        for task in build.plan.spec.benchmarks.tasks:
            table = build.read(build.plan.questions[task], REQUESTS)
            self.requests[task] = requests_of(read_table(table, request_schema()))

    def measurements(self, task: str, template: Template) -> dict[str, Measurement]:
        """By file what is asked of a model; the template is that of its base."""
        from sftlab.measurements.generations import Generations
        from sftlab.measurements.harness import asked_rows, continuation_rows
        from sftlab.measurements.likelihood import LogLikelihoods

        spec, requests = self.build.plan.spec, self.requests[task]
        found: dict[str, Measurement] = {}
        if asked := asked_rows(requests):
            found[GENERATED] = Generations(sorted(asked, key=lambda row: row.max_tokens), spec.template)
        if rows := list(continuation_rows(template, requests)):
            found[CHOICES] = LogLikelihoods(rows, spec.likelihood)
        return found

    def write_scores(self, task: str, folder: Path, file: str) -> None:
        """Write lm-eval's verdicts on the answers in a folder, as a table of answers."""
        import pyarrow as pa
        import pyarrow.parquet as pq

        from sftlab.measurements.benchmarks import benchmark_answer_schema

        if task not in self._loaded:
            self._loaded[task] = load(self.build, task)
        harness = self._loaded[task]
        if harness.requests != self.requests[task]:
            raise UserError(
                f"task {task} asks other questions than those that were recorded",
                place="benchmarks.harness",
                advice=f"delete {self.build.path(self.build.plan.questions[task])} to record it again.",
            )
        found = read_responses(folder)
        failed = {
            self.requests[task][place].question: row["error"] for place, row in found.items() if row["error"]
        }
        tokens: dict[str, int] = {}
        for place, row in found.items():
            name = self.requests[task][place].question
            tokens[name] = tokens.get(name, 0) + (row["tokens"] or 0)
        given = {place: row["value"] for place, row in found.items() if not row["error"]}
        rows = [
            {"question_id": row["question_id"], "tokens": 0, "error": failed[row["question_id"]]}
            if row["question_id"] in failed
            else {**row, "tokens": tokens[row["question_id"]]}
            for row in harness.scores(given)
        ]
        pq.write_table(pa.Table.from_pylist(rows, schema=benchmark_answer_schema()), folder / file)


def read_responses(folder: Path) -> Mapping[int, dict[str, Any]]:
    """What a model answered, by the place of the request: its text or log-likelihood as `value`."""
    from sftlab.measurements.generations import generation_schema
    from sftlab.measurements.likelihood import likelihood_schema

    found: dict[int, dict[str, Any]] = {}
    for name, schema, column in (
        (GENERATED, generation_schema(), "text"),
        (CHOICES, likelihood_schema(), "log_likelihood"),
    ):
        if (folder / name).is_file():
            for row in read_table(folder / name, schema).to_pylist():
                found[int(row["key"])] = {**row, "value": row[column]}
    return found
