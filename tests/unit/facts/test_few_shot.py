"""Examples for prompts with solved questions."""

from __future__ import annotations

from sftlab.facts.few_shot import examples_by_topic

KNOWN = [
    {"fact_id": f"{topic}{i}", "topic": topic, "question": f"{topic}{i}?", "object": f"{topic.lower()}{i}"}
    for topic, count in (("A", 6), ("B", 2))
    for i in range(count)
]


def test_examples_are_nested_seeded_and_of_topics_with_enough_other_facts() -> None:
    three = examples_by_topic(KNOWN, {"A0?"}, 3, seed=0)
    assert set(three) == {"A"} and len(three["A"]) == 3
    assert ("A0?", "a0") not in examples_by_topic(KNOWN, {"A0?"}, 5, seed=0)["A"]
    assert "A" not in examples_by_topic(KNOWN, {"A0?"}, 6, seed=0)
    two = examples_by_topic(list(reversed(KNOWN)), {"A0?"}, 2, seed=0)
    assert two["A"] == three["A"][:2] and sorted(two["B"]) == [("B0?", "b0"), ("B1?", "b1")]
    assert len({tuple(examples_by_topic(KNOWN, (), 3, seed)["A"]) for seed in range(5)}) > 1
