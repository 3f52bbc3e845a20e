"""Tasks of lm-eval: requests are recorded once, answered by the engines of a survey, and replayed for their metrics.

lm-eval (an extra, `pip install sftlab[harness]`) reads the task and its data, makes the requests and computes the
metrics. Prompts are recorded as conversations, so that the survey's template renders them as it renders training
examples. Nothing is downloaded.
"""

from __future__ import annotations

import io
import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import chdir, redirect_stderr
from dataclasses import dataclass
from functools import cache, cached_property
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from sftlab.config.documents import nearest
from sftlab.datasets.conversations import Conversation, Turn
from sftlab.datasets.rendered import Template
from sftlab.errors import UserError
from sftlab.measurements.generations import Asked
from sftlab.measurements.likelihood import Continuation
from sftlab.measurements.spec import HarnessSpec

if TYPE_CHECKING:
    import pyarrow as pa

OFFLINE = ("HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE")
LONGEST = 256  # tokens of an answer, where a task does not say; as in lm-eval
LENGTHS = ("max_gen_toks", "max_new_tokens", "max_tokens", "max_completion_tokens")
INVALID = "[invalid]"  # what lm-eval's filters make of an answer in another form


@dataclass(frozen=True)
class Request:
    """One thing that lm-eval asks a model.

    Attributes:
        question: TASK/NUMBER of the document that it belongs to.
        history: the conversation that waits for a response, as JSON of role and content.
        choice: a response whose log-likelihood is asked; None where a response is asked.
        until, max_tokens: where a response ends.
    """

    question: str
    history: str
    choice: str | None = None
    until: tuple[str, ...] = ()
    max_tokens: int = 0

    @property
    def turns(self) -> tuple[Turn, ...]:
        return tuple(Turn(turn["role"], turn["content"]) for turn in json.loads(self.history))

    @property
    def text(self) -> str:
        """The last thing that is said."""
        return self.turns[-1].text


def request_schema() -> pa.Schema:
    """Columns of a table of requests: the fields of `Request`."""
    import pyarrow as pa

    text = pa.string()
    length = [("until", pa.list_(text)), ("max_tokens", pa.int32())]
    return pa.schema([("question", text), ("history", text), ("choice", text), *length])


def requests_of(table: pa.Table) -> list[Request]:
    """The requests of a table."""
    return [Request(**{**row, "until": tuple(row["until"])}) for row in table.to_pylist()]


def asked_rows(requests: Sequence[Request]) -> list[Asked]:
    """The responses that are asked, with the place of the request as their key."""
    return [
        Asked(str(place), Conversation(request.turns), request.until, request.max_tokens)
        for place, request in enumerate(requests)
        if request.choice is None
    ]


def continuation_rows(template: Template, requests: Sequence[Request]) -> Iterator[Continuation]:
    """The log-likelihoods that are asked, in the template, with the place of the request as their key."""
    for place, request in enumerate(requests):
        if request.choice is None:
            continue
        answer = Turn("assistant", request.choice, loss=True)
        rendered = template.render(Conversation((*request.turns, answer)))
        (span,) = rendered.spans
        before, response = rendered.text[: span.start], rendered.text[span.start : span.close]
        yield Continuation(str(place), before, response, rendered.bos)


def harness_version() -> str:
    """The version of lm-eval that is installed; empty without one."""
    try:
        return version("lm_eval")
    except PackageNotFoundError:
        return ""


def require_harness() -> None:
    """Raises UserError where lm-eval is not installed."""
    if not harness_version():
        raise UserError(
            "lm-eval is not installed",
            place="benchmarks.harness",
            advice=(
                "install it with `pip install sftlab[harness]` on the machine of the driver, or "
                "leave `harness` out."
            ),
        )


class Harness:
    """One task or group of lm-eval, loaded with its data."""

    def __init__(self, name: str, spec: HarnessSpec) -> None:
        """Raises UserError for an unknown task, one whose data are not on this machine, and one of another kind."""
        self.name, self.spec = name, spec
        self._loaded = _load(name, spec)
        for task in self.tasks.values():
            _check(task)

    @property
    def tasks(self) -> Mapping[str, Any]:
        """The tasks of the group by name, or the task itself."""
        return cast("Mapping[str, Any]", self._loaded["tasks"])

    @cached_property
    def requests(self) -> list[Request]:
        """Everything that a model is asked, in lm-eval's order."""
        asked: list[Any] = []

        def record(instances: Sequence[Any], empty: Any) -> list[Any]:
            asked.extend(instances)
            return [empty] * len(instances)

        self._evaluate(lambda found: record(found, (0.0, False)), lambda found: record(found, ""))
        return [_request(instance) for instance in asked]

    def scores(self, responses: Mapping[int, str | float]) -> Iterator[dict[str, Any]]:
        """The score of every question, as rows of `measurements.benchmarks.benchmark_answer_schema` without tokens.

        responses: by the place of a request its text or log-likelihood; a missing one counts as empty, or as the least
        likely.
        """
        places: dict[tuple[str, str, str | None], int] = {}
        for place, request in enumerate(self.requests):
            places.setdefault((request.question, request.history, request.choice), place)

        def place_of(instance: Any) -> int:
            request = _request(instance)
            return places[request.question, request.history, request.choice]

        def log_likelihoods(instances: Sequence[Any]) -> list[tuple[float, bool]]:
            found = (responses.get(place_of(instance), -1e9) for instance in instances)
            return [(float(value), False) for value in found]

        def generate(instances: Sequence[Any]) -> list[str]:
            return [str(responses.get(place_of(instance), "")) for instance in instances]

        samples = self._evaluate(log_likelihoods, generate)["samples"]
        for name, rows in samples.items():
            metric, filtered = self._metric(name, rows)
            yield from (_row(name, row, metric) for row in rows if row["filter"] == filtered)

    def _metric(self, task: str, rows: Sequence[Mapping[str, Any]]) -> tuple[str, str]:
        """The metric and the filter whose value is the score."""
        wanted, _, filtered = self.spec.metrics.get(self.name, "").partition(",")
        filters = list(dict.fromkeys(row["filter"] for row in rows))
        filtered = filtered or filters[0]
        metrics = [name for name in rows[0]["metrics"] if _is_number(rows[0][name])]
        metric = wanted or next(iter(metrics), "")
        where = f"benchmarks.harness: task {task}"
        if metric not in metrics or filtered not in filters:
            raise UserError(
                (
                    f"{self.spec.metrics.get(self.name) or 'its first metric'!r} is no metric and filter "
                    "with a value for each question"
                ),
                place=where,
                value=self.spec.metrics.get(self.name) or "its first metric",
                advice=(
                    f"metrics are {', '.join(metrics) or 'none'}, filters {', '.join(filters)}; choose by "
                    "`metrics`."
                ),
            )
        if not self.tasks[task].higher_is_better().get(metric, True):
            raise UserError(
                f"{metric} is better the lower it is", place=where, advice="choose another by `metrics`."
            )
        return metric, filtered

    def _evaluate(
        self,
        log_likelihoods: Callable[[Sequence[Any]], list[tuple[float, bool]]],
        generate: Callable[[Sequence[Any]], list[str]],
    ) -> Mapping[str, Any]:
        from lm_eval.evaluator import evaluate

        for task in self.tasks.values():
            task.set_fewshot_seed(seed=self.spec.seed)
        with redirect_stderr(io.StringIO()):  # its progress bars, one for every model
            found = evaluate(
                _model(log_likelihoods, generate),
                self._loaded,
                limit=self.spec.questions,
                bootstrap_iters=0,
                apply_chat_template=True,
                fewshot_as_multiturn=True,
            )
        return cast("Mapping[str, Any]", found)


def _model(log_likelihoods: Callable[..., Any], generate: Callable[..., Any]) -> Any:
    """A model of lm-eval that answers by these functions and keeps conversations as JSON."""
    from lm_eval.api.model import LM

    class Recorded(LM):  # type: ignore[misc]
        tokenizer_name = ""

        def loglikelihood(self, requests: list[Any]) -> Any:
            return log_likelihoods(requests)

        def loglikelihood_rolling(self, requests: list[Any]) -> Any:
            raise AssertionError(f"{len(requests)} requests of a kind that `_check` refuses")

        def generate_until(self, requests: list[Any]) -> Any:
            return generate(requests)

        def apply_chat_template(self, chat_history: list[dict[str, str]], *_: Any, **__: Any) -> str:
            return json.dumps(chat_history, ensure_ascii=False)

    return Recorded()


def require_tasks(spec: HarnessSpec) -> None:
    """Raises UserError for names that are no tasks; their data are not read."""
    _work_offline()
    for name in spec.tasks:
        _manager(name, spec)


def _manager(name: str, spec: HarnessSpec) -> Any:
    """What knows the task of a name: of the survey's folder first. Raises UserError where nothing does."""
    folder = _folder(spec)
    for defaults in (False, True) if folder else (True,):
        manager = _tasks(folder, defaults)
        if name in manager.all_tasks:
            return manager
    near = nearest(name, manager.all_tasks)
    raise UserError(
        "unknown",
        place=f"benchmarks.harness: task {name}",
        value=name,
        advice=f"{f'did you mean {near!r}? ' if near else ''}`lm_eval ls tasks` lists the tasks, `include` names a "
        "folder with others.",
    )


@cache
def _tasks(folder: str | None, defaults: bool) -> Any:
    """The index of tasks in a folder, with lm-eval's or without them."""
    from lm_eval.tasks import TaskManager

    return TaskManager(include_path=folder, include_defaults=defaults)


def _folder(spec: HarnessSpec) -> str | None:
    return None if spec.include is None else str(Path(spec.include).resolve())


def _load(name: str, spec: HarnessSpec) -> Any:
    """lm-eval's task and group of a name, without the network."""
    _work_offline()
    where, folder, manager = f"benchmarks.harness: task {name}", _folder(spec), _manager(name, spec)
    try:
        with chdir(folder or "."):  # data files of a task are relative to the folder
            loaded = manager.load([name])
    except UserError:
        raise
    except Exception as error:  # whatever a task's data or code raise
        first = str(error).strip().split("\n")[0][:160]
        raise UserError(
            f"cannot be loaded without the network ({type(error).__name__}: {first})",
            place=where,
            expected=(
                "its data on this machine, in the cache of Hugging Face datasets or in files that "
                "its YAML names"
            ),
        ) from error
    for task in loaded["tasks"].values():
        if spec.shots is not None:
            task.set_config(key="num_fewshot", value=spec.shots)
        elif task.get_config("num_fewshot") is None:
            task.set_config(key="num_fewshot", value=0)
    return loaded


def _work_offline() -> None:
    """Keep the Hugging Face libraries of this process off the network, imported before or not."""
    os.environ.update(dict.fromkeys(OFFLINE, "1"))
    import datasets
    import huggingface_hub.constants

    datasets.disable_progress_bars()

    huggingface_hub.constants.HF_HUB_OFFLINE = True
    datasets.config.HF_HUB_OFFLINE = True


def _check(task: Any) -> None:
    """Raises UserError for a task of a kind that is not asked."""
    config, where = task.config, f"benchmarks.harness: task {task.config.task}"
    if task.OUTPUT_TYPE not in ("generate_until", "multiple_choice"):
        raise UserError(
            f"has the output type {task.OUTPUT_TYPE}",
            place=where,
            expected="generate_until or multiple_choice",
        )
    if getattr(task, "UNSAFE_CODE", False):
        raise UserError(
            "runs generated code, which `harness` does not",
            place=where,
            advice="give a file to `benchmarks.code`.",
        )
    if getattr(task, "MULTIMODAL", False):
        raise UserError("asks about pictures or sound, and models here read text", place=where)
    if config.gen_prefix is not None:
        raise UserError(
            "begins the answer itself (gen_prefix), which the survey's template does not allow", place=where
        )
    if config.repeats != 1:
        raise UserError(f"asks each question {config.repeats} times, and answers are greedy", place=where)
    generation = config.generation_kwargs or {}
    if task.OUTPUT_TYPE == "generate_until" and (
        generation.get("do_sample") or generation.get("temperature")
    ):
        raise UserError(
            "samples its answers, and answers are greedy",
            place=where,
            advice="set do_sample: false in its YAML.",
        )
    if "acc_mutual_info" in task.higher_is_better():
        raise UserError(
            "acc_mutual_info needs likelihoods without a prompt", place=where, advice="remove the metric."
        )


def _request(instance: Any) -> Request:
    """A request of lm-eval; its first argument is what `apply_chat_template` made."""
    task, number, _ = instance.metadata
    history, given = instance.args[:2]
    if instance.request_type == "loglikelihood":
        return Request(f"{task}/{number}", history, str(given).strip())
    until = given.get("until") or []
    longest = next((given[name] for name in LENGTHS if given.get(name)), LONGEST)
    ends = (until,) if isinstance(until, str) else tuple(until)
    return Request(f"{task}/{number}", history, None, ends, int(longest))


def _row(task: str, sample: Mapping[str, Any], metric: str) -> dict[str, Any]:
    """The answer of a question, its score, and whether a filter found it to be in the asked form."""
    chosen = sample["arguments"][0][1]
    if isinstance(chosen, str):  # a question with choices is always answered in the form
        logs = [found[0] for found in sample["filtered_resps"]]
        text, in_form = str(sample["arguments"][logs.index(max(logs))][1]).strip(), True
    else:
        text, found = str(sample["resps"][0][0]), str(sample["filtered_resps"][0])
        in_form = found != INVALID and any(sign.isalnum() for sign in found)
    return {
        "question_id": f"{task}/{sample['doc_id']}",
        "answer": text,
        "score": float(sample[metric]),
        "in_form": in_form,
    }


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) or (hasattr(value, "item") and getattr(value, "ndim", 1) == 0)


def outside_files(task: Any, folder: Path) -> list[str]:
    """The data files of a task that are not in the folder, whose content identifies it."""
    given = (task.config.dataset_kwargs or {}).get("data_files") or {}
    parts = given.values() if isinstance(given, Mapping) else [given]
    names = [name for part in parts for name in ([part] if isinstance(part, str) else part)]
    return [name for name in names if not (folder / name).resolve().is_relative_to(folder.resolve())]
