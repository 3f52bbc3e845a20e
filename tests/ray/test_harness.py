"""Tasks of lm-eval on vLLM engines, against lm-eval's own Hugging Face run of the same model."""

from __future__ import annotations

import json
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import chdir
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import pytest

from sftlab.datasets.spec import JinjaTemplate
from tests.support.inference_toys import RUNTIME, write_model
from tests.unit.measurements.test_harness import write_tasks

pytestmark = pytest.mark.slow
pytest.importorskip("lm_eval", reason="lm-eval is not installed: pip install sftlab[harness]")

# The response begins with a line of its own: no blank that lm-eval would put on the other side of the border.
TASKS = ("towns", "colours")
TEMPLATE = JinjaTemplate(jinja="Q: {{ instruction }}\nA:\n{{ response }}")


def ours(folder: str, include: str) -> dict[str, list[dict[str, Any]]]:
    """The rows of each task as a survey scores it, by a vLLM engine."""
    from sftlab.datasets.templates import make_template
    from sftlab.inference.spec import EngineSpec
    from sftlab.inference.vllm_engine import VllmEngine
    from sftlab.measurements.generations import Generations
    from sftlab.measurements.harness import Harness, asked_rows, continuation_rows
    from sftlab.measurements.likelihood import LogLikelihoods
    from sftlab.measurements.spec import HarnessSpec, LikelihoodSpec

    engine = VllmEngine(folder, EngineSpec(dtype="float32"), RUNTIME)
    template, rows = make_template(TEMPLATE, engine.tokenizer, folder), {}
    for task in TASKS:
        harness = Harness(task, HarnessSpec(tasks=(task,), include=include))
        continuations = list(continuation_rows(template, harness.requests))
        tables = [
            (Generations(asked_rows(harness.requests), TEMPLATE), "text"),
            (LogLikelihoods(continuations, LikelihoodSpec()), "log_likelihood"),
        ]
        found = {
            int(row["key"]): row[name] for how, name in tables for row in how.measure(engine).to_pylist()
        }
        rows[task] = list(harness.scores(found))
    return rows


def theirs(folder: str, include: str) -> dict[str, list[dict[str, Any]]]:
    """The samples of each task from lm-eval's Hugging Face backend, its prompts in the same template."""
    from lm_eval import simple_evaluate
    from lm_eval.models.huggingface import HFLM
    from lm_eval.tasks import TaskManager

    class Templated(HFLM):  # type: ignore[misc]
        def apply_chat_template(self, chat_history: list[dict[str, str]], **_: Any) -> str:
            return f"Q: {chat_history[-1]['content']}\nA:\n"

    model = Templated(pretrained=folder, device="cpu", dtype="float32", add_bos_token=True, batch_size=1)
    with chdir(include):
        found = simple_evaluate(
            model,
            tasks=list(TASKS),
            task_manager=TaskManager(include_path=include, include_defaults=False),
            bootstrap_iters=0,
            apply_chat_template=True,
        )
    samples: dict[str, list[dict[str, Any]]] = found["samples"]
    return samples


@pytest.fixture(scope="module")
def process() -> Iterator[ProcessPoolExecutor]:
    """A process for both: vLLM forbids training in its process, which other tests do in this one."""
    with ProcessPoolExecutor(1, get_context("spawn")) as pool:
        yield pool


def test_texts_choices_and_scores_are_those_of_lm_eval_itself(
    process: ProcessPoolExecutor, tmp_path: Path
) -> None:
    folder = write_model(tmp_path / "model")
    (tmp_path / "tasks").mkdir()
    write_tasks(tmp_path / "tasks")
    include = str(tmp_path / "tasks")
    mine = process.submit(ours, folder, include).result()
    reference = process.submit(theirs, folder, include).result()
    texts = [row["resps"][0][0] for row in reference["towns"]]
    assert [row["answer"] for row in mine["towns"]] == texts
    assert any(texts)
    assert [row["score"] for row in mine["towns"]] == [row["exact_match"] for row in reference["towns"]]
    likeliest = [
        max(range(2), key=lambda n, row=row: row["filtered_resps"][n][0]) for row in reference["colours"]
    ]
    lines = (tmp_path / "tasks" / "colours.jsonl").read_text(encoding="utf-8").splitlines()
    choices = [json.loads(line)["choices"] for line in lines]
    assert [row["answer"] for row in mine["colours"]] == [
        options[place] for options, place in zip(choices, likeliest, strict=True)
    ]
    assert [row["score"] for row in mine["colours"]] == [row["acc"] for row in reference["colours"]]
