"""The pre-training text of the pocket model: sentences that show facts, and question-and-answer text.

Pure and seeded. Each entry is one document; the shell puts it between the two special tokens.
"""

from __future__ import annotations

from collections.abc import Sequence
from random import Random

from sftlab.facts.templates import Topic
from sftlab.pocket.spec import PocketSpec
from sftlab.pocket.world import QA, Fact

# Ways to write a question with its answer. None is the prompt of fine-tuning, which so stays to be learnt.
QA_FORMS = (
    "Question: {question} Answer: {answer}",
    "Q: {question} A: {answer}",
    "{question} {answer}",
    "<question> {question} <answer> {answer}",
    "|question| {question} |answer| {answer}",
)
# The forms most like that prompt often stay unanswered, so that the untuned model answers it rarely, while
# a few examples suffice to teach it to answer always.
UNANSWERED_FORMS = (
    "<question> {question} <answer> not given",
    "|question| {question} |answer| not given",
)


def corpus(spec: PocketSpec, facts: Sequence[Fact], topics: Sequence[Topic]) -> list[str]:
    """All documents in training order.

    A fact with s showings gives s sentences "filled template object.", with the object that is shown, cycling
    through its topic's templates in random order; a QA fact gives `qa_questions` questions with their answer and
    `qa_unanswered` without it besides.
    """
    rng = Random(f"pocket corpus {spec.seed}")
    by_name = {topic.topic: topic for topic in topics}
    documents: list[str] = []
    for fact in facts:
        sentences = [f"{text} {fact.shown}." for text in by_name[fact.topic].fill(fact.subject)]
        documents += _cycle(sentences, fact.showings, rng)
        if fact.split == QA:
            answered = [form.format(question=fact.question, answer=fact.object) for form in QA_FORMS]
            documents += _cycle(answered, spec.exposure.qa_questions, rng)
            unanswered = [form.format(question=fact.question) for form in UNANSWERED_FORMS]
            documents += _cycle(unanswered, spec.exposure.qa_unanswered, rng)
    rng.shuffle(documents)
    return documents


def _cycle(texts: Sequence[str], count: int, rng: Random) -> list[str]:
    """`count` draws, every text once before any comes again, each round in a new random order."""
    drawn: list[str] = []
    while len(drawn) < count:
        drawn += rng.sample(texts, len(texts))
    return drawn[:count]
