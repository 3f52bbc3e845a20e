"""Models per hour on tasks of lm-eval: the warm engine of a survey against lm-eval, started once for each model.

    PYTHONPATH=. python -m benchmarks.survey_evaluation [--models 12] [--questions 200] [--reference 2]

The base is a pocket model with random weights, and the models are copies of it with other weights. Both sides answer
the same two tasks, one with generated answers and one with choices, from local files, on the CPU. The survey's side
starts one engine, swaps weights, answers and lets lm-eval score. The other side runs `lm_eval --model hf` as a user
does, a process a model. Target: at least 10 times the models per hour, without the start of the engine, which a survey
pays once for a base; the ratio with it is printed too. Needs `pip install sftlab[harness]`.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path

import ray

from benchmarks.training_group import SHAPE
from sftlab.inference.evaluator import EvaluationItem, EvaluationRequest, evaluate_with_engines
from sftlab.inference.spec import EngineRuntime, EngineSpec
from sftlab.inference.tokenizer_check import load_tokenizer
from sftlab.measurements.generations import Generations, generation_schema
from sftlab.measurements.harness import Harness, asked_rows, continuation_rows
from sftlab.measurements.likelihood import LogLikelihoods, likelihood_schema
from sftlab.measurements.spec import HarnessSpec, LikelihoodSpec
from sftlab.pocket.pretrain import new_model, train_tokenizer
from sftlab.store.tables import read_table
from sftlab.weights.restoration import ModelSource

TARGET = 10
HOUR = 3600.0
TOKENS = 12
ANSWERED = """task: towns
dataset_path: json
dataset_kwargs: {data_files: {test: %s/towns.jsonl}}
test_split: test
output_type: generate_until
doc_to_text: "{{question}}"
doc_to_target: "{{answer}}"
generation_kwargs: {until: ["\\n"], max_gen_toks: %d, do_sample: false}
metric_list: [{metric: exact_match, aggregation: mean, higher_is_better: true}]
"""
CHOSEN = """task: colours
dataset_path: json
dataset_kwargs: {data_files: {test: %s/colours.jsonl}}
test_split: test
output_type: multiple_choice
doc_to_text: "{{question}}"
doc_to_choice: "{{choices}}"
doc_to_target: label
metric_list: [{metric: acc, aggregation: mean, higher_is_better: true}]
"""
TASKS = ("towns", "colours")


def write_tasks(folder: Path, questions: int) -> list[str]:
    """Both tasks with so many questions each; returns the texts."""
    asked = [f"In which town does person {n} work?" for n in range(questions)]
    answers = [f"town {n % 17}" for n in range(questions)]
    rows = [{"question": q, "answer": a} for q, a in zip(asked, answers, strict=True)]
    choices = [
        {"question": q, "choices": ["red", "blue", "green", "white"], "label": n % 4}
        for n, q in enumerate(asked)
    ]
    for name, lines in (("towns", rows), ("colours", choices)):
        (folder / f"{name}.jsonl").write_text(
            "".join(json.dumps(row) + "\n" for row in lines), encoding="utf-8"
        )
    (folder / "towns.yaml").write_text(ANSWERED % (folder, TOKENS), encoding="utf-8")
    (folder / "colours.yaml").write_text(CHOSEN % folder, encoding="utf-8")
    return [*asked, *answers]


def write_models(folder: Path, texts: list[str], count: int) -> list[Path]:
    """Models with random weights and one tokenizer."""
    import torch

    tokenizer = train_tokenizer(
        [f"###Question: {text}\n###Answer: {text}" for text in texts], SHAPE.vocabulary
    )
    folders = []
    for number in range(count):
        torch.manual_seed(number)
        folders.append(folder / f"model-{number}")
        new_model(SHAPE, tokenizer).save_pretrained(folders[-1])
        tokenizer.save_pretrained(folders[-1])
    return folders


def warm(models: list[Path], folder: Path) -> tuple[float, float]:
    """Seconds until the first model is scored, and for each one after it."""
    from sftlab.datasets.templates import make_template

    base = str(models[0])
    template = make_template("paper", load_tokenizer(base), base)
    tasks = {name: Harness(name, HarnessSpec(tasks=(name,), include=str(folder))) for name in TASKS}
    measurements = {
        "towns": Generations(asked_rows(tasks["towns"].requests), "paper"),
        "colours": LogLikelihoods(
            list(continuation_rows(template, tasks["colours"].requests)), LikelihoodSpec()
        ),
    }
    items = [
        EvaluationItem(
            f"m{number}", ModelSource(base, str(model)), measurements, folder / "out" / str(number)
        )
        for number, model in enumerate(models)
    ]
    request = EvaluationRequest(
        items, base, EngineSpec(dtype="float32"), folder / "session", folder / "damaged"
    )
    done: list[float] = []

    def finished(item: EvaluationItem) -> None:
        for name, harness in tasks.items():
            list(harness.scores(responses(item.output_dir / name, name)))
        done.append(time.perf_counter())

    started = time.perf_counter()
    evaluate_with_engines(request, EngineRuntime(), finished=finished)
    return done[0] - started, (done[-1] - done[0]) / (len(done) - 1)


def responses(file: Path, task: str) -> Mapping[int, str | float]:
    """What a model answered to a task, by the place of the request."""
    schema, column = (
        (generation_schema(), "text") if task == "towns" else (likelihood_schema(), "log_likelihood")
    )
    return {int(row["key"]): row[column] for row in read_table(file, schema).to_pylist()}


def started_once_a_model(models: list[Path], folder: Path) -> float:
    """Seconds a model of lm-eval with its Hugging Face backend, from the start of its process to its results."""
    started = time.perf_counter()
    for number, model in enumerate(models):
        subprocess.run(
            [
                *(sys.executable, "-m", "lm_eval", "--model", "hf", "--device", "cpu", "--batch_size", "16"),
                *("--model_args", f"pretrained={model},dtype=float32", "--tasks", ",".join(TASKS)),
                *("--include_path", str(folder), "--output_path", str(folder / f"reference-{number}")),
            ],
            check=True,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
    return (time.perf_counter() - started) / len(models)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--models", type=int, default=12)
    parser.add_argument("--questions", type=int, default=200)
    parser.add_argument("--reference", type=int, default=2)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        texts = write_tasks(folder, options.questions)
        models = write_models(folder, texts, options.models)
        theirs = started_once_a_model(models[: options.reference], folder)
        ray.init(address="local", num_cpus=4, include_dashboard=False, log_to_driver=False)
        try:
            first, each = warm(models, folder)
        finally:
            ray.shutdown()
    whole = (first + each * (options.models - 1)) / options.models
    print(f"{options.questions} generated answers and {4 * options.questions} choices a model")
    print(f"lm-eval, a process a model     {theirs:6.2f} s a model   {HOUR / theirs:8,.0f} models an hour")
    print(f"warm engine                    {each:6.2f} s a model   {HOUR / each:8,.0f} models an hour")
    print(f"ratio                          {theirs / each:6.1f} x (target {TARGET})")
    print(
        f"first model, with the engine's start   {first:.1f} s: {theirs / whole:.1f} x over {options.models} models"
    )


if __name__ == "__main__":
    main()
