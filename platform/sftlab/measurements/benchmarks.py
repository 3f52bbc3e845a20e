"""Answers to the questions of benchmarks, in the template of the survey, with their verdicts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any

from sftlab.datasets.conversations import question
from sftlab.datasets.encode import Encoder
from sftlab.datasets.spec import TemplateSpec
from sftlab.inference.engine import Completion, Engine, Prompt
from sftlab.inference.limits import WHOLE, BatchLimits, named_memory_errors
from sftlab.measurements.verdicts import in_form, score

if TYPE_CHECKING:
    import pyarrow as pa

BLOCK = 4096  # questions of one call to the engine


def question_schema() -> pa.Schema:
    """Columns of a table of questions; `choices` is empty and `label` null where there are none."""
    import pyarrow as pa

    return pa.schema(
        [
            ("question_id", pa.string()),
            ("question", pa.string()),
            ("accepted", pa.list_(pa.string())),
            ("metric", pa.string()),
            ("form", pa.string()),
            ("choices", pa.list_(pa.string())),
            ("label", pa.int32()),
        ]
    )


def benchmark_answer_schema() -> pa.Schema:
    """Columns of a table of answers; `score` and `in_form` are null where `error` says why it was not asked."""
    import pyarrow as pa

    return pa.schema(
        [
            ("question_id", pa.string()),
            ("answer", pa.string()),
            ("score", pa.float64()),
            ("in_form", pa.bool_()),
            ("tokens", pa.int32()),
            ("error", pa.string()),
        ]
    )


@dataclass(frozen=True)
class BenchmarkAnswers:
    """Greedy answers of one model to the questions of one benchmark. A `Measurement`.

    Attributes:
        questions: as `question_schema`.
        template: renders the questions as the training examples are rendered.
        max_tokens: longest answer, in tokens.
        shots: question and answer of examples that come before each question.
    """

    questions: pa.Table
    template: TemplateSpec
    max_tokens: int
    shots: tuple[tuple[str, str], ...] = ()

    def measure(self, engine: Engine, limits: BatchLimits = WHOLE) -> pa.Table:
        """One row for every question, in order.

        Raises EngineMemoryError naming the questions over which the engine ran out of memory, and UserError for a
        template that does not fit the tokenizer.
        """
        import pyarrow as pa

        rows = self.questions.to_pylist()
        answered: list[dict[str, Any]] = []
        for start in range(0, len(rows), BLOCK):
            answered += self._block(rows[start : start + BLOCK], engine, limits)
        return pa.Table.from_pylist(answered, schema=benchmark_answer_schema())

    def _block(
        self, rows: Sequence[Mapping[str, Any]], engine: Engine, limits: BatchLimits
    ) -> list[dict[str, Any]]:
        asked = [limits.refused.get(row["question_id"]) or self._ask(row, engine) for row in rows]
        prompts = [
            (row["question_id"], ask) for row, ask in zip(rows, asked, strict=True) if isinstance(ask, Prompt)
        ]
        completions: list[Completion] = []
        for piece in limits.pieces(prompts):
            with named_memory_errors([key for key, _ in piece]):
                completions += engine.answer([ask for _, ask in piece], self.max_tokens)
        answers = iter(completions)
        return [
            _judged(row, next(answers)) if isinstance(ask, Prompt) else _unasked(row, ask)
            for row, ask in zip(rows, asked, strict=True)
        ]

    def _ask(self, row: Mapping[str, Any], engine: Engine) -> Prompt | str:
        """The prompt of a question, or why it cannot be asked."""
        ids = prompt_tokens(engine.tokenizer, self.template, row["question"], self.shots)
        needed = len(ids) + self.max_tokens
        if needed > engine.max_model_len:
            return f"too long: prompt and answer take {needed} tokens of {engine.max_model_len}"
        return Prompt(ids)


@cache
def prompt_tokens(
    tokenizer: Any, template: TemplateSpec, asked: str, shots: tuple[tuple[str, str], ...] = ()
) -> tuple[int, ...]:
    """Ids of a question in a template, remembered: all models of a base are asked the same."""
    return template_encoder(tokenizer, template).encode_prompt(question(asked, shots))


@cache
def template_encoder(tokenizer: Any, template: TemplateSpec) -> Encoder:
    """The encoder of a template, made once for each tokenizer."""
    from sftlab.datasets.templates import make_template

    name = str(tokenizer.name_or_path)
    return Encoder(tokenizer, make_template(template, tokenizer, name), name)


def _judged(row: Mapping[str, Any], answer: Completion) -> dict[str, Any]:
    return {
        "question_id": row["question_id"],
        "answer": answer.text,
        "score": score(answer.text, row["accepted"], row["metric"]),
        "in_form": in_form(answer.text, row["metric"], row["form"]),
        "tokens": answer.tokens,
    }


def _unasked(row: Mapping[str, Any], error: str) -> dict[str, Any]:
    return {"question_id": row["question_id"], "tokens": 0, "error": error}
