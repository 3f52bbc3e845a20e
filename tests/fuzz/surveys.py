"""Readers of what surveys and tables of scores are made of."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Sequence
from pathlib import Path
from random import Random
from typing import Any

from tests.fuzz import seeds
from tests.fuzz.mutate import altered
from tests.fuzz.reader import Make, Reader

SURVEY: dict[str, Any] = {
    "name": "s",
    "bases": {
        "pocket": {"a": {"scale": 0.1}, "b": {"continues": "a", "language": "second"}},
        "folders": {"c": {"path": "models/c", "family": "llama", "parameters": 10}},
    },
    "data": {
        "pocket": ["chatty"],
        "files": {"f": {"source": "f.jsonl"}},
        "draw": {"max_tokens": 99, "fit": ["c"]},
    },
    "benchmarks": {"pocket": ["sums"], "files": {"q": {"source": "q.jsonl", "shots": 2}}, "questions": 20},
    "sft": {"learning_rate": 1.0e-3, "epochs": 2},
    "runs": [
        {"sizes": [40], "methods": ["full", {"lora": {"rank": 4}}], "seeds": [0, 1]},
        {"sizes": [40], "methods": [{"strategy": "wise-ft", "percent": 50}], "keep_epochs": "all"},
    ],
    "restore": {"percents": [0, 20], "data": ["chatty"]},
    "measure": {"likelihood_map": {"questions": 10}},
}
LONG: list[list[Any]] = [
    ["model", "data", "method", "size", "epoch", "benchmark", "score"],
    ["m", "base", "", "", "", "quiz", 40],
    ["m", "good", "full", 1000, 3, "quiz", 55.5],
]
WIDE: list[list[Any]] = [
    ["", "model_name", "data_name", "quiz-0shot", "lora", "epoch", "data_size", "lr_strategy"],
    [0, "m", "pretrain", 40, "None", 0, 0.0, ""],
    [1, "m", "good", 55.5, "false", 3, 1000.0, "cosine"],
]
ABOUT: dict[str, Any] = {
    "models": {"m": {"family": "one", "language": "en"}},
    "data": {"good": {"length": 90}},
    "benchmarks": {"quiz": {"chance": 25, "questions": 100, "transfer": "en"}},
}
QUESTIONS: list[dict[str, Any]] = [
    {"question": "Which port?", "answer": "8443", "metric": "number", "form": "[0-9]+"},
    {"question": "Who?", "answers": ["the lead", "a lead"], "id": "w"},
    {"question": "Which plan?", "choices": ["Basic", "Plus"], "label": "B"},
]
GRADES: list[dict[str, Any]] = [
    {"question_id": 1, "model": "m", "judge": ["gpt-4", "single-v1"], "score": 7, "turn": turn}
    for turn in (1, 2)
]
PREFERENCES: list[dict[str, Any]] = [
    {"instruction": "Hi", "generator_1": "reference", "generator_2": "m", "preference": 1.5}
]
HUMAN_EVAL: list[dict[str, Any]] = [
    {"task_id": "t/0", "prompt": "def f(x):\n", "entry_point": "f", "test": "def check(f):\n    pass\n"}
]
MBPP: list[dict[str, Any]] = [
    {"task_id": 2, "text": "Write f.", "test_list": ["assert f(1)"], "test_setup_code": ""},
    {"task_id": 3, "prompt": "Write f.", "test_list": ["assert f(1)"], "test_imports": ["import math"]},
]


def survey_readers() -> list[Reader]:
    """Surveys, tables of scores with what is said about them, benchmarks, programs, judgments."""
    programs = [seeds.json_lines(rows) for rows in (HUMAN_EVAL, MBPP)]
    return [
        Reader("survey file", _survey, [seeds.yaml_text(SURVEY)], lambda draw: seeds.yaml_text(altered(SURVEY, draw))),
        Reader("scores CSV", _scores, [_csv(LONG), _csv(WIDE)], _csv_of),
        Reader("about a table", _about, [seeds.yaml_text(ABOUT)], lambda draw: seeds.yaml_text(altered(ABOUT, draw))),
        Reader("benchmark file", _benchmark, [seeds.json_lines(QUESTIONS)], _lines_of(QUESTIONS)),
        Reader("programs", _programs, programs, _lines_of(HUMAN_EVAL, MBPP)),
        Reader("grades", _judgments("mt-bench"), [seeds.json_lines(GRADES)], _lines_of(GRADES)),
        Reader("preferences", _judgments("alpaca-eval"), [seeds.json_lines(PREFERENCES)], _lines_of(PREFERENCES)),
    ]  # fmt: skip


def _lines_of(*documents: list[dict[str, Any]]) -> Make:
    return lambda draw: seeds.json_lines(altered(draw.choice(documents), draw))


def _csv_of(draw: Random) -> bytes:
    return _csv(altered(draw.choice((LONG, WIDE)), draw))


def _csv(rows: Sequence[Sequence[Any]]) -> bytes:
    out = io.StringIO()
    csv.writer(out, lineterminator="\n").writerows(rows)
    return out.getvalue().encode("utf-8", "surrogatepass")


def _survey(data: bytes, folder: Path) -> object:
    """The runs of a survey."""
    from sftlab.studies.load import load_survey
    from sftlab.studies.survey.check import check_rows
    from sftlab.studies.survey.runs import runs_of

    file = folder / "survey.yaml"
    file.write_bytes(data)
    spec = load_survey(file)
    check_rows(spec)
    return [run.name for run in runs_of(spec)]


def _scores(data: bytes, folder: Path) -> object:
    from sftlab.studies.survey.score_table import read_scores

    (folder / "scores.csv").write_bytes(data)
    return read_scores(folder / "scores.csv").scores.tolist()


def _about(data: bytes, folder: Path) -> object:
    from sftlab.studies.survey.about import read_about
    from sftlab.studies.survey.score_table import read_scores

    (folder / "scores.csv").write_bytes(_csv(LONG))
    (folder / "about.yaml").write_bytes(data)
    table = read_scores(folder / "scores.csv")
    about = read_about(folder / "about.yaml", table)
    return about.single_sets(table), about.main_benchmarks(table)


def _benchmark(data: bytes, folder: Path) -> object:
    """The questions as the table that the survey keeps, all and after an example, and whether an answer is in form."""
    import pyarrow as pa

    from sftlab.datasets.benchmark_file import BenchmarkFileSpec, read_benchmark, read_shots
    from sftlab.measurements.benchmarks import question_schema
    from sftlab.measurements.verdicts import in_form

    (folder / "asked.jsonl").write_bytes(data)
    read_shots(BenchmarkFileSpec(source=str(folder / "asked.jsonl"), shots=1))
    rows = read_benchmark(BenchmarkFileSpec(source=str(folder / "asked.jsonl")))
    table = pa.Table.from_pylist(rows, schema=question_schema())
    return [in_form("8443", row["metric"], row["form"]) for row in table.to_pylist()]


def _programs(data: bytes, folder: Path) -> object:
    """The problems as the table that the survey keeps, and the programs of an answer."""
    import pyarrow as pa

    from sftlab.datasets.code_file import problem_rows, problem_schema, read_problems

    (folder / "code.jsonl").write_bytes(data)
    problems = read_problems(str(folder / "code.jsonl"))
    programs = [problem.program("def f(x):\n    return x") for problem in problems]
    return programs, pa.Table.from_pylist(problem_rows(problems), schema=problem_schema()).num_rows


def _judgments(form: str) -> Callable[[bytes, Path], object]:
    def read(data: bytes, folder: Path) -> object:
        from sftlab.datasets.judgments import JudgmentsSpec, read_judgments

        (folder / "judged.jsonl").write_bytes(data)
        spec = JudgmentsSpec.model_validate({"source": str(folder / "judged.jsonl"), "format": form})
        return read_judgments(spec)

    return read
