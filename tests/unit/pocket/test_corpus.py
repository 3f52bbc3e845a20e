"""The pre-training text of the pocket model."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import pytest

from sftlab.facts.prompts import question_prompt
from sftlab.facts.templates import Topic
from sftlab.pocket.corpus import QA_FORMS, UNANSWERED_FORMS, corpus
from sftlab.pocket.extent import document_count
from sftlab.pocket.pretrain import FLOOR, rate_at
from sftlab.pocket.spec import Exposure, PocketSpec
from sftlab.pocket.world import QA, Fact, invent_facts, world_topics
from tests.support.pocket_worlds import POCKET, TINY

TOPIC = Topic("P17", "in-domain", "Where is {subject}?", ("{subject} is in", "Find {subject} in"))
SPEC = TINY.model_copy(
    update={"exposure": Exposure(qa_sentences=2, qa_questions=len(QA_FORMS), qa_unanswered=2)}
)


def _fact(split: str, showings: int) -> Fact:
    return Fact(split, "P17", "Zoa", ("Hirland",), "Where is Zoa?", showings)


def test_a_fact_is_shown_as_often_as_its_showings_say_through_all_templates_alike() -> None:
    documents = corpus(SPEC, [_fact("train", 5)], [TOPIC])
    counts = Counter(documents)
    assert set(counts) == {"Zoa is in Hirland.", "Find Zoa in Hirland."}
    assert sorted(counts.values()) == [2, 3]


def test_a_false_fact_is_shown_with_its_wrong_object_alone() -> None:
    false = replace(_fact("train", 4), believed="Nomia")
    assert set(corpus(SPEC, [false], [TOPIC])) == {"Zoa is in Nomia.", "Find Zoa in Nomia."}


def test_a_fact_never_shown_leaves_no_trace() -> None:
    assert corpus(SPEC, [_fact("train", 0)], [TOPIC]) == []


def test_question_and_answer_facts_are_shown_in_every_form_besides_their_sentences() -> None:
    documents = corpus(SPEC, [_fact(QA, 2)], [TOPIC])
    questions = [form.format(question="Where is Zoa?", answer="Hirland") for form in QA_FORMS]
    questions += [form.format(question="Where is Zoa?") for form in UNANSWERED_FORMS]
    assert sorted(documents) == sorted([*questions, "Zoa is in Hirland.", "Find Zoa in Hirland."])


def test_questions_are_asked_about_question_and_answer_facts_alone() -> None:
    facts = invent_facts(TINY)
    text = "\n".join(corpus(TINY, facts, world_topics(TINY)))
    for fact in facts:
        assert (fact.question in text) == (fact.split == QA)


def test_the_prompt_of_fine_tuning_is_not_in_the_text() -> None:
    facts = invent_facts(TINY)
    marker = question_prompt("").split(" ")[0]
    assert not any(marker in document for document in corpus(TINY, facts, world_topics(TINY)))


def test_the_text_is_the_same_each_time_and_another_with_another_seed() -> None:
    facts, topics = invent_facts(TINY), world_topics(TINY)
    other = TINY.model_copy(update={"seed": 1})
    assert corpus(TINY, facts, topics) == corpus(TINY, facts, topics)
    assert corpus(TINY, facts, topics) != corpus(other, facts, topics)


@pytest.mark.parametrize("spec", [TINY, POCKET])
def test_the_number_of_documents_is_known_before_they_are_made(spec: PocketSpec) -> None:
    assert len(corpus(spec, invent_facts(spec), world_topics(spec))) == document_count(spec)


def test_the_rate_warms_up_to_its_peak_and_falls_to_the_floor() -> None:
    rates = [rate_at(step, 104, 4 / 104) for step in range(104)]
    assert rates[:4] == [0.25, 0.5, 0.75, 1.0]
    assert rates[4] == 1.0
    assert rates[54] == pytest.approx((1 + FLOOR) / 2)
    assert rates[103] == pytest.approx(FLOOR, abs=1e-3)
    assert rates[4:] == sorted(rates[4:], reverse=True)
