"""Closed-book answers to questions, and the verdict on each (paper, section 3.3)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from sftlab.facts.mastery import contains_answer
from sftlab.facts.prompts import first_answer, question_prompt
from sftlab.inference.engine import Completion, Engine, Prompt
from sftlab.inference.limits import WHOLE, BatchLimits, named_memory_errors
from sftlab.measurements.encoding import encode
from sftlab.measurements.mastery import fact_error
from sftlab.measurements.spec import AnswerSpec

if TYPE_CHECKING:
    import pyarrow as pa

ANSWERS = "answers.parquet"


def answer_schema() -> pa.Schema:
    """Columns of the answers table; `correct` is null where `error` says why a question was not asked."""
    import pyarrow as pa

    return pa.schema(
        [
            ("fact_id", pa.string()),
            ("split", pa.string()),
            ("answer", pa.string()),
            ("correct", pa.bool_()),
            ("tokens", pa.int32()),
            ("error", pa.string()),
        ]
    )


@dataclass(frozen=True)
class ClosedBookAnswers:
    """Greedy answers of one model to the facts of every split. A `Measurement`; see `answer_schema` for its table.

    Attributes:
        facts: facts to answer, by split.
        spec: how they are answered.
        examples: by topic, solved questions that come before each question (`facts.prompts.solved`). The answer is
            then judged up to where the model begins a further question.
    """

    facts: Mapping[str, pa.Table]
    spec: AnswerSpec
    examples: Mapping[str, str] = field(default_factory=dict)

    def measure(self, engine: Engine, limits: BatchLimits = WHOLE) -> pa.Table:
        """One row for every fact, in order.

        Raises EngineMemoryError naming the rows (`row_key`) over which the engine ran out of memory.
        """
        import pyarrow as pa

        rows = [{**fact, "split": split} for split, table in self.facts.items() for fact in table.to_pylist()]
        answered: list[dict[str, Any]] = []
        for start in range(0, len(rows), self.spec.block_rows):
            answered += self._block(rows[start : start + self.spec.block_rows], engine, limits)
        return pa.Table.from_pylist(answered, schema=answer_schema())

    def _block(
        self, facts: Sequence[Mapping[str, Any]], engine: Engine, limits: BatchLimits
    ) -> list[dict[str, Any]]:
        before = [self.examples.get(fact["topic"], "") for fact in facts]
        asked = [
            limits.refused.get(row_key(fact)) or _ask(fact, engine, self.spec, solved)
            for fact, solved in zip(facts, before, strict=True)
        ]
        prompts = [
            (row_key(fact), ask) for fact, ask in zip(facts, asked, strict=True) if isinstance(ask, Prompt)
        ]
        completions: list[Completion] = []
        for piece in limits.pieces(prompts):
            with named_memory_errors([key for key, _ in piece]):
                completions += engine.answer([ask for _, ask in piece], self.spec.max_tokens)
        answers = iter(completions)
        rows = []
        for fact, ask, solved in zip(facts, asked, before, strict=True):
            row: dict[str, Any] = {"fact_id": fact["fact_id"], "split": fact["split"]}
            if isinstance(ask, Prompt):
                answer = next(answers)
                text = first_answer(answer.text) if solved else answer.text
                correct = contains_answer(text, fact["accepted"], self.spec.whole_words)
                row |= {"answer": text, "correct": correct, "tokens": answer.tokens}
            else:
                row |= {"tokens": 0, "error": ask}
            rows.append(row)
        return rows


def row_key(fact: Mapping[str, Any]) -> str:
    """Name of a row of the answers: several splits may have the same fact."""
    return f"{fact['split']}/{fact['fact_id']}"


def _ask(fact: Mapping[str, Any], engine: Engine, spec: AnswerSpec, solved: str) -> Prompt | str:
    """The prompt of a question after solved ones, or why it cannot be asked."""
    error = fact_error(fact)
    if error is not None:
        return error
    if not (fact["question"] or "").strip():
        return "question is empty"
    ids = encode(engine.tokenizer, solved + question_prompt(fact["question"]))
    needed = len(ids) + spec.max_tokens
    if needed > engine.max_model_len:
        return f"too long: prompt and answer take {needed} tokens of {engine.max_model_len}"
    return Prompt(ids, tuple(fact["accepted"]) if spec.early_stop and not spec.whole_words else ())
