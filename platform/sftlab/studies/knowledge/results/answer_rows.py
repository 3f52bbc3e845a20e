"""The rows of the result tables on answers: their kinds, accuracy by topic with baselines, mastery after tuning."""

from __future__ import annotations

from collections.abc import Sequence
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


@dataclass(frozen=True)
class FewShotRow:
    """Accuracy of the base model where `shots` solved questions of the topic come before each question.

    bucket: None is the mean of the non-empty buckets; `questions` and `correct` are then the sums.
    """

    shots: int
    split: str  # "test" or "test_ood"
    bucket: int | None
    questions: int
    correct: int
    accuracy: float


@dataclass(frozen=True)
class TopicRow:
    """Accuracy of one model on the facts of one topic. The base model: cell "base", no percent.

    frequency_correlation: Spearman's rho between the frequency of a fact's answer and whether the model is right; None
    where one of the two is constant.
    """

    cell: str
    percent: float | None  # restored, 0 is the tuned model
    split: str  # "test" or "test_ood"
    topic: str
    questions: int
    correct: int
    frequency_correlation: float | None

    @property
    def accuracy(self) -> float:
        return self.correct / self.questions


@dataclass(frozen=True)
class TopicBaselineRow:
    """What accuracy on the facts of one topic comes without knowledge of any fact.

    known_from: the split whose `facts` facts of the topic are known. majority: their most frequent answer, and
    majority_accuracy the share of the questions that it answers. frequency_accuracy: of answers drawn as often as they
    occur there.
    """

    split: str  # "test" or "test_ood"
    topic: str
    questions: int
    known_from: str  # "train" or "dev_ood"
    facts: int
    majority: str
    majority_accuracy: float
    frequency_accuracy: float


@dataclass(frozen=True)
class MasteryAfterRow:
    """Mastery of the test facts of one bucket of the base model by a tuned or restored model of a cell.

    base_r, r: mean R of the base model and of this one. lower, higher: facts whose bucket is another one now. The other
    counts are the facts by whether the model answers the question right, and whether any of its completions holds the
    answer (`known`): `wrong_known` has lost the form of answers alone, `wrong_unknown` the fact.
    """

    cell: str
    percent: float  # restored, 0 is the tuned model
    split: str  # "test" or "test_ood"
    bucket: int
    facts: int
    base_r: float
    r: float
    lower: int
    higher: int
    right_known: int
    right_unknown: int
    wrong_known: int
    wrong_unknown: int


def mean_correlation(rows: Sequence[TopicRow]) -> float | None:
    """Mean of the topics' `frequency_correlation`, weighted with their questions; None where no topic has one."""
    known = [
        (row.questions, row.frequency_correlation) for row in rows if row.frequency_correlation is not None
    ]
    total = sum(questions for questions, _ in known)
    return sum(questions * rho for questions, rho in known) / total if known else None
