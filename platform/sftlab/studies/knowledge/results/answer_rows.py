"""The rows of the result tables that describe single answers: their kinds, by model, topic and bucket."""

from __future__ import annotations

from dataclasses import dataclass

from sftlab.analysis.answer_kinds import Kinds


@dataclass(frozen=True)
class AnswerKindRow:
    """Answers of one model to the facts of one topic and bucket, by kind. The base model: cell "base", no percent.

    The counts are those of `sftlab.analysis.answer_kinds.Kinds`; together they are the facts of the topic and bucket.
    """

    cell: str
    percent: float | None  # restored, 0 is the tuned model
    split: str  # "test", "test_ood" or "train_set"
    topic: str
    bucket: int
    right: int
    other_entity: int
    no_answer: int
    malformed: int

    @property
    def kinds(self) -> Kinds:
        return Kinds(self.right, self.other_entity, self.no_answer, self.malformed)
