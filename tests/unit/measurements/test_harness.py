"""Tasks of lm-eval: what is recorded, and what is made of the answers. Skipped where lm-eval is not installed."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from sftlab.errors import UserError
from sftlab.measurements.harness import (
    Harness,
    asked_rows,
    continuation_rows,
    request_schema,
    requests_of,
    require_tasks,
)
from sftlab.measurements.spec import HarnessSpec
from tests.support.refusals import refused
from tests.unit.measurements.test_rendered_likelihood import template

pytest.importorskip("lm_eval", reason="lm-eval is not installed: pip install sftlab[harness]")

OPEN = """task: towns
dataset_path: json
dataset_kwargs: {data_files: {test: towns.jsonl}}
test_split: test
fewshot_split: test
output_type: generate_until
doc_to_text: "{{question}}"
doc_to_target: "{{answer}}"
generation_kwargs: {until: ["\\n", "."], max_gen_toks: 7, do_sample: %s}
metric_list:
  - {metric: exact_match, aggregation: mean, higher_is_better: true, ignore_case: true}
"""
CHOICES = """task: colours
dataset_path: json
dataset_kwargs: {data_files: {test: colours.jsonl}}
test_split: test
output_type: multiple_choice
doc_to_text: "{{question}}"
doc_to_choice: "{{choices}}"
doc_to_target: label
metric_list:
  - {metric: acc, aggregation: mean, higher_is_better: true}
  - {metric: acc_norm, aggregation: mean, higher_is_better: true}
"""


def lines(path: Path, rows: list[dict[str, object]]) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def write_tasks(folder: Path, sampled: str = "false") -> HarnessSpec:
    lines(folder / "towns.jsonl", [{"question": f"Where is {n}?", "answer": f"Town{n}"} for n in range(4)])
    lines(
        folder / "colours.jsonl",
        [{"question": f"Which {n}?", "choices": ["a long red", "blue"], "label": n % 2} for n in range(3)],
    )
    (folder / "towns.yaml").write_text(OPEN % sampled, encoding="utf-8")
    (folder / "colours.yaml").write_text(CHOICES, encoding="utf-8")
    return HarnessSpec(tasks=("towns", "colours"), include=str(folder))


@pytest.fixture(scope="module")
def spec(tmp_path_factory: pytest.TempPathFactory) -> HarnessSpec:
    return write_tasks(tmp_path_factory.mktemp("tasks"))


def test_questions_are_recorded_as_conversations_with_where_their_answers_end(spec: HarnessSpec) -> None:
    harness = Harness("towns", spec)
    first, *others = asked_rows(harness.requests)
    assert [turn.text for turn in first.conversation.turns] == ["Where is 0?"]
    assert (first.key, first.until, first.max_tokens, len(others)) == ("0", ("\n", "."), 7, 3)


def test_examples_of_lm_eval_are_earlier_turns_and_the_same_every_time(spec: HarnessSpec) -> None:
    shown = spec.model_copy(update={"shots": 2, "questions": 2})
    requests = Harness("towns", shown).requests
    assert [len(request.turns) for request in requests] == [5, 5]
    assert [turn.role for turn in requests[0].turns] == ["user", "assistant", "user", "assistant", "user"]
    again = Harness("towns", shown)
    assert again.requests == requests
    assert [row["score"] for row in again.scores({0: "Town0", 1: "Town0"})] == [1.0, 0.0]


def test_choices_are_rendered_as_responses(spec: HarnessSpec) -> None:
    first, second, *_ = continuation_rows(template(), Harness("colours", spec).requests)
    assert (first.key, first.prompt, first.continuation) == ("0", "Q: Which 0?\nA:", " a long red")
    assert (second.key, second.continuation) == ("1", " blue")


def test_metrics_are_those_of_lm_eval(spec: HarnessSpec) -> None:
    found = list(Harness("towns", spec).scores({0: "town0", 1: "Town1 ", 2: "?", 3: "Town1"}))
    assert [(row["question_id"], row["score"], row["in_form"]) for row in found] == [
        ("towns/0", 1.0, True),
        ("towns/1", 0.0, True),  # lm-eval compares with the blank
        ("towns/2", 0.0, False),
        ("towns/3", 0.0, True),
    ]


def test_likeliest_choice_is_scored_and_another_metric_can_be(spec: HarnessSpec) -> None:
    logs = {0: -2.0, 1: -1.0, 2: -2.0, 3: -1.0, 4: -2.0, 5: -1.0}  # "blue" each time; by letter the other
    plain = list(Harness("colours", spec).scores(logs))
    assert [(row["answer"], row["score"]) for row in plain] == [("blue", 0.0), ("blue", 1.0), ("blue", 0.0)]
    by_length = spec.model_copy(update={"metrics": {"colours": "acc_norm"}})
    assert [row["score"] for row in Harness("colours", by_length).scores(logs)] == [1.0, 0.0, 1.0]


def test_requests_survive_their_table(spec: HarnessSpec) -> None:
    import pyarrow as pa

    requests = Harness("towns", spec).requests + Harness("colours", spec).requests
    rows = [vars(request) for request in requests]
    assert requests_of(pa.Table.from_pylist(rows, schema=request_schema())) == requests


@pytest.mark.parametrize(
    ("name", "changes", "named"),
    [
        ("twons", {}, "task twons: unknown"),
        ("gsm8k", {"tasks": ("gsm8k",)}, "without the network"),
        ("towns", {"metrics": {"towns": "acc"}}, "'acc' is no metric"),
    ],
)
def test_tasks_that_cannot_be_asked_are_refused_in_one_line(
    spec: HarnessSpec, name: str, changes: dict[str, object], named: str
) -> None:
    with pytest.raises(UserError, match=named) as refused:
        list(Harness(name, spec.model_copy(update=changes)).scores({}))
    assert "\n" not in str(refused.value)


def test_task_that_samples_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="do_sample: false"):
        Harness("towns", write_tasks(tmp_path, "true"))


def test_name_that_is_no_task_is_refused_with_the_nearest_before_data_are_read(spec: HarnessSpec) -> None:
    require_tasks(spec)
    with refused("unknown", place="task town", advice="did you mean 'towns'?"):
        require_tasks(spec.model_copy(update={"tasks": ("towns", "town")}))
