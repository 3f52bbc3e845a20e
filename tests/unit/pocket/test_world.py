"""The pocket world's facts and names."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from sftlab.errors import UserError
from sftlab.facts.table import COLUMNS, SPLITS, fact_id, facts_table
from sftlab.facts.templates import published_topics
from sftlab.pocket.spec import Exposure, PocketSpec, Shape
from sftlab.pocket.world import (
    KINDS,
    QA,
    Fact,
    exposure_table,
    facts_of,
    invent_facts,
    sample_facts,
    showings_at,
    showings_list,
    split_tables,
    with_false,
    world_facts,
    world_topics,
)
from tests.support.pocket_worlds import POCKET, TINY
from tests.support.refusals import refused


@pytest.fixture(scope="module")
def facts() -> list[Fact]:
    return invent_facts(POCKET)


def test_every_split_holds_its_number_of_facts_in_every_topic(facts: list[Fact]) -> None:
    counts = Counter((fact.split, fact.topic) for fact in facts)
    for split in ("train", "test", "dev", QA):
        assert {counts[split, topic] for topic in POCKET.in_domain} == {getattr(POCKET.facts, split)}
    for split in ("test_ood", "dev_ood", QA):
        assert {counts[split, topic] for topic in POCKET.out_of_domain} == {getattr(POCKET.facts, split)}
    assert sum(counts.values()) == len(facts)


def test_a_subject_occurs_in_one_fact_only(facts: list[Fact]) -> None:
    assert len({fact.subject for fact in facts}) == len(facts)


def test_no_accepted_name_lies_in_its_subject_or_in_another_object(facts: list[Fact]) -> None:
    assert not any(name in fact.subject for fact in facts for name in fact.accepted)
    objects = {fact.accepted for fact in facts}
    for accepted in objects:
        for other in objects - {accepted}:
            assert not any(name in rival for name in accepted for rival in other)


def test_topics_of_one_kind_share_their_objects(facts: list[Fact]) -> None:
    def objects(topic: str) -> set[str]:
        return {fact.object for fact in facts if fact.topic == topic}

    assert len(objects("P19") & objects("P159")) > POCKET.objects / 2
    assert objects("P19").isdisjoint(objects("P17"))


def test_some_objects_have_a_second_accepted_name(facts: list[Fact]) -> None:
    assert {len(fact.accepted) for fact in facts} == {1, 2}


def test_questions_are_those_of_the_study(facts: list[Fact]) -> None:
    topics = published_topics()
    assert all(topics[fact.topic].subject_of(fact.question) == fact.subject for fact in facts)


def test_the_same_seed_gives_the_same_facts_and_another_seed_others() -> None:
    other = TINY.model_copy(update={"seed": 1})
    assert invent_facts(TINY) == invent_facts(TINY)
    assert not {f.subject for f in invent_facts(TINY)} & {f.subject for f in invent_facts(other)}


def test_split_tables_have_the_columns_and_ids_of_a_facts_folder(facts: list[Fact]) -> None:
    tables = split_tables(facts)
    assert tuple(tables) == SPLITS
    assert all(tuple(table.column_names) == COLUMNS for table in tables.values())
    row = tables["train"].to_pylist()[0]
    assert row["fact_id"] == fact_id(row["topic"], row["subject"], row["object"])
    ids = [i for table in tables.values() for i in table["fact_id"].to_pylist()]
    assert len(ids) == len(set(ids)) == len([f for f in facts if f.split != QA])


def test_exposure_table_gives_back_the_facts() -> None:
    facts = invent_facts(TINY)
    assert facts_of(exposure_table(facts)) == facts


def test_false_facts_are_a_share_of_what_is_shown_and_change_nothing_else(facts: list[Fact]) -> None:
    spec = POCKET.model_copy(update={"false_facts": 0.25})
    found = world_facts(spec, None)
    assert [replace(fact, believed=None) for fact in found] == facts
    assert world_facts(spec, None) == found != with_false(facts, 0.25, seed=1)
    for split in ("train", "test", "dev_ood"):
        for topic in {fact.topic for fact in facts if fact.split == split}:
            mine = [fact for fact in found if (fact.split, fact.topic) == (split, topic) and fact.showings]
            assert sum(fact.believed is not None for fact in mine) == round(len(mine) / 4)
    false = [fact for fact in found if fact.believed is not None]
    assert all(fact.split != QA and fact.showings and fact.shown == fact.believed for fact in false)
    objects = {topic: {fact.object for fact in facts if fact.topic == topic} for topic in KINDS}
    for fact in false:
        assert fact.believed in objects[fact.topic] and fact.believed not in fact.subject
        assert not any(name in str(fact.believed) for name in fact.accepted)


def test_an_exposure_table_with_false_facts_gives_them_back() -> None:
    found = with_false(invent_facts(TINY), 0.5, seed=0)
    table = exposure_table(found, false_facts=True)
    assert table.column_names == [*exposure_table(found).column_names, "shown"]
    assert facts_of(table) == found and any(fact.believed for fact in found)


def test_a_topic_with_one_object_has_no_wrong_one() -> None:
    same = [Fact("train", "P17", f"Zoa{i}", ("Hirland",), "Where?", 3) for i in range(2)]
    with refused("has no other object", place="pocket facts, train, P17", value="Hirland"):
        with_false(same, 0.5, seed=0)


def test_showings_are_log_linear_between_knots() -> None:
    curve = ((0.2, 4.0), (0.6, 16.0), (1.0, 64.0))
    assert showings_at(curve, 0.1) == 0
    assert showings_at(curve, 0.2) == 4
    assert showings_at(curve, 0.4) == 8
    assert showings_at(curve, 0.6) == 16
    assert showings_at(curve, 0.8) == 32
    assert showings_at(curve, 1.0) == 64


def test_showings_are_spread_at_even_quantiles() -> None:
    exposure = Exposure(curve=((0.25, 2.0), (0.75, 8.0), (1.0, 8.0)), ood_scale=10.0, qa_sentences=7)
    # quantiles 1/8, 3/8, 5/8, 7/8: never, 2 * 4**(1/4) = 2.83, 2 * 4**(3/4) = 5.66, 8
    assert showings_list(exposure, "train", 4) == [0, 3, 6, 8]
    assert showings_list(exposure, "dev_ood", 4) == [0, 28, 57, 80]
    assert showings_list(exposure, QA, 3) == [7, 7, 7]


@given(st.integers(1, 60))
def test_never_shown_facts_are_the_first_knots_share(count: int) -> None:
    showings = showings_list(Exposure(curve=((0.5, 3.0), (1.0, 9.0))), "train", count)
    assert showings.count(0) == count // 2
    assert all(s == 0 or 3 <= s <= 9 for s in showings)


def test_splits_and_topics_have_the_same_distribution_of_showings(facts: list[Fact]) -> None:
    def shown(split: str, topic: str) -> list[int]:
        return sorted(f.showings for f in facts if (f.split, f.topic) == (split, topic))

    assert len({tuple(shown("train", topic)) for topic in POCKET.in_domain}) == 1
    never = {
        split: sum(s == 0 for s in shown(split, "P17")) / len(shown(split, "P17"))
        for split in ("train", "test")
    }
    assert never["train"] == pytest.approx(never["test"], abs=0.03)


def _given(objects: dict[str, str], count: int) -> dict[str, list[dict[str, object]]]:
    rows = {}
    for split in SPLITS:
        topics = TINY.out_of_domain if split.endswith("ood") else TINY.in_domain
        rows[split] = [
            {
                "fact_id": f"{split}{topic}{i}",
                "topic": topic,
                "subject": f"{split} {topic} subject {i}",
                "object": objects.get(topic, "Omelas"),
                "accepted": [objects.get(topic, "Omelas")],
                "question": f"What of {i}?",
            }
            for topic in topics
            for i in range(count)
        ]
    return rows


SOURCED = TINY.model_copy(update={"source": "archive.zip", "object_share": 1.0})


def test_a_sample_of_given_facts_is_balanced_and_keeps_the_splits_apart() -> None:
    rows = _given({}, 30)
    facts = sample_facts(SOURCED, {split: facts_table(rows[split]) for split in SPLITS})
    counts = Counter((fact.split, fact.topic) for fact in facts)
    assert counts["train", "P17"] == counts["train", "P19"] == TINY.facts.train
    assert counts["dev_ood", "P50"] == TINY.facts.dev_ood
    assert len({(fact.topic, fact.subject) for fact in facts}) == len(facts)
    for fact in facts:
        origin = {"P17": "train", "P19": "train", "P50": "dev_ood", "P264": "dev_ood"}[fact.topic]
        assert fact.subject.split(" ")[0] == (origin if fact.split == QA else fact.split)


def test_a_sample_leaves_out_answers_in_the_subject_and_overlong_names() -> None:
    rows = _given({}, 30)
    for split in SPLITS:
        rows[split] += [dict(row, subject=f"Omelas {row['subject']}") for row in rows[split]]
        rows[split] += [dict(row, subject=f"{row['subject']} {'x' * 40}") for row in rows[split][:30]]
    facts = sample_facts(SOURCED, {split: facts_table(rows[split]) for split in SPLITS})
    assert not any("Omelas" in fact.subject or "xxx" in fact.subject for fact in facts)


def test_a_sample_caps_the_facts_of_one_object() -> None:
    rows = _given({}, 60)
    for split in SPLITS:
        for i, row in enumerate(rows[split]):
            if i % 2:
                row.update(object=f"Land{i:03}", accepted=[f"Land{i:03}"])
    spec = SOURCED.model_copy(update={"object_share": 0.1})
    facts = sample_facts(spec, {split: facts_table(rows[split]) for split in SPLITS})
    counts = Counter((fact.split, fact.topic) for fact in facts if fact.object == "Omelas")
    assert counts["train", "P17"] <= 2  # a tenth of 20
    assert max(counts.values()) <= 2


def test_too_few_given_facts_name_split_topic_and_both_numbers() -> None:
    rows = _given({}, 10)
    with refused("20 facts wanted, 10 usable", place="train, P17", value=10):
        sample_facts(SOURCED, {split: facts_table(rows[split]) for split in SPLITS})


def test_unknown_and_repeated_topics_are_refused() -> None:
    with pytest.raises(UserError, match="'P999' is not available"):
        world_topics(TINY.model_copy(update={"in_domain": ("P999",)}))
    with pytest.raises(UserError, match="'P50' is listed twice"):
        world_topics(TINY.model_copy(update={"in_domain": ("P50",)}))


def test_a_topic_has_the_domain_that_this_world_gives_it() -> None:
    swapped = PocketSpec(in_domain=("P50",), out_of_domain=("P17",))
    assert [(t.topic, t.domain) for t in world_topics(swapped)] == [
        ("P50", "in-domain"),
        ("P17", "out-of-domain"),
    ]


@pytest.mark.parametrize(
    "curve",
    [
        (),
        ((0.1, 4.0),),
        ((0.5, 4.0), (0.4, 8.0), (1.0, 9.0)),
        ((0.1, 8.0), (1.0, 4.0)),
        ((0.1, 0.0), (1.0, 2.0)),
    ],
)
def test_a_curve_that_is_no_quantile_function_is_refused(curve: tuple[tuple[float, float], ...]) -> None:
    with pytest.raises(ValidationError):
        Exposure(curve=curve)


def test_heads_must_divide_the_hidden_size() -> None:
    with pytest.raises(ValidationError, match="heads"):
        Shape(hidden=64, heads=3)
