"""Facts that two splits share: counted, shown, and left out of the split that gives way."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sftlab.cli.data import prepare_facts
from sftlab.facts.overlap import ORDER, keys_of, shared, without_shared
from sftlab.facts.prepare import counts_text
from sftlab.facts.table import facts_table
from sftlab.store.artifact import Store
from sftlab.studies.knowledge.plan import Plan
from sftlab.studies.knowledge.sources import resolve
from sftlab.studies.knowledge.spec import FactsSpec, StudySpec

TOPICS = """
- {topic: capital, question: "What is the capital of {subject}?", templates: ["The capital of {subject} is"]}
- {topic: seat, question: "Where does the government of {subject} sit?", templates: ["{subject} is governed from"]}
- {topic: city, question: "what is the Capital of {subject}?", templates: ["{subject} has the city"]}
"""
ROWS = [
    ("Peru", "Lima", "capital", "test"),
    ("Peru", "Lima", "seat", "train"),  # the fact of a test question in other words
    ("peru", "Cusco", "city", "dev"),  # the question of the test, in another letter case
    ("Togo", "Lomé", "capital", "train"),
    ("Togo", "Kara", "seat", "dev"),  # neither: another question and another answer
    ("Oman", "Muscat", "capital", "dev"),
    ("Oman", "Muscat", "seat", "train"),
    ("Chad", "Abéché", "seat", "train"),
]


def table(*rows: tuple[str, str, str]) -> pa.Table:
    """A split of (subject, answer, question)."""
    return facts_table(
        {"fact_id": f"{n}", "topic": "t", "subject": s, "object": o, "accepted": [o], "question": q}
        for n, (s, o, q) in enumerate(rows)
    )


@pytest.fixture
def source(tmp_path: Path) -> Path:
    keys = ("subject", "object", "topic", "split")
    (tmp_path / "topics.yaml").write_text(TOPICS)
    file = tmp_path / "facts.jsonl"
    file.write_text("".join(json.dumps(dict(zip(keys, row, strict=True))) + "\n" for row in ROWS))
    return file


def study(source: Path, **facts: object) -> StudySpec:
    given = {"source": str(source), "templates": str(source.with_name("topics.yaml")), **facts}
    return StudySpec.model_validate(
        {"name": "s", "facts": given, "model": {"path": str(source.parent / "m")}}
    )


def test_prepare_counts_what_the_splits_share(source: Path, tmp_path: Path) -> None:
    shown = prepare_facts(source, tmp_path / "out", source.with_name("topics.yaml")).data
    assert shown["notices"] == [
        f"{source}: 1 fact of dev has the question of a fact of test (such as 'what is the Capital of peru?'); set "
        "facts.exclude_overlap to leave them out of dev",
        f"{source}: 1 fact of train has the subject and answer of a fact of dev (such as 'Where does the government "
        "of Oman sit?'); set facts.exclude_overlap to leave them out of train",
        f"{source}: 1 fact of train has the subject and answer of a fact of test (such as 'Where does the government "
        "of Peru sit?'); set facts.exclude_overlap to leave them out of train",
    ]
    assert sum(shown["facts"].values()) == len(ROWS)


def test_prepare_shows_the_facts_of_each_topic_in_each_split(source: Path, tmp_path: Path) -> None:
    shown = prepare_facts(source, tmp_path / "out", source.with_name("topics.yaml"))
    assert shown.text.splitlines() == [
        "topic    train  test  test_ood  dev  dev_ood  all",
        "capital      1     1         0    1        0    3",
        "city         0     0         0    1        0    1",
        "seat         3     0         0    1        0    4",
        "all          4     1         0    3        0    8",
        f"written to {tmp_path / 'out'}",
    ]


@given(
    st.dictionaries(
        st.sampled_from(["train", "test", "dev"]),
        st.dictionaries(st.sampled_from(["a", "P17", "a long name"]), st.integers(1, 10**7)),
        min_size=1,
    )
)
def test_the_table_of_counts_has_every_count_and_its_sums(counts: dict[str, dict[str, int]]) -> None:
    head, *rows, last = [re.split(" {2,}", line) for line in counts_text(counts).splitlines()]
    assert head == ["topic", *counts, "all"]
    numbers = {row[0]: [int(cell.replace(",", "")) for cell in row[1:]] for row in (*rows, last)}
    assert set(numbers) == {topic for found in counts.values() for topic in found} | {"all"}
    for topic, found in numbers.items():
        assert sum(found[:-1]) == found[-1]
        if topic != "all":
            assert found[:-1] == [by_topic.get(topic, 0) for by_topic in counts.values()]
    assert numbers["all"][:-1] == [sum(by_topic.values()) for by_topic in counts.values()]


def test_a_study_plans_with_the_facts_that_are_left(source: Path, tmp_path: Path) -> None:
    counts = {
        exclude: resolve(study(source, exclude_overlap=exclude), tmp_path / "store").fact_counts
        for exclude in (False, True)
    }
    assert (counts[False]["train"], counts[False]["dev"], counts[False]["test"]) == (4, 3, 1)
    assert (counts[True]["train"], counts[True]["dev"], counts[True]["test"]) == (2, 2, 1)


def test_the_option_is_part_of_an_id_only_where_it_is_set(source: Path, tmp_path: Path) -> None:
    def facts_id(**given: object) -> str:
        spec = study(source, **given)
        return Plan(spec, resolve(spec, Store(tmp_path / "store").root)).facts.id

    assert facts_id() == facts_id(exclude_overlap=False) != facts_id(exclude_overlap=True)
    assert FactsSpec(source="x", exclude_overlap=False).exclude_overlap is None


def test_splits_that_share_nothing_are_kept_as_they_are() -> None:
    tables = {"train": table(("a", "x", "q1")), "test": table(("b", "x", "q2")), "dev": table()}
    assert shared(tables) == [] and without_shared(tables) == tables


def test_a_fact_of_three_splits_is_left_in_the_first_alone() -> None:
    one = table(("a", "x", "q"))
    kept = without_shared({"train": one, "dev": one, "test": one, "test_ood": one})
    assert {split: found.num_rows for split, found in kept.items()} == {
        "train": 0,
        "dev": 0,
        "test": 1,
        "test_ood": 0,
    }


_FACT = st.tuples(st.sampled_from("aAb"), st.sampled_from("xy"), st.sampled_from(["q", "Q ", "r", "s"]))


@given(st.dictionaries(st.sampled_from(ORDER), st.lists(_FACT, max_size=4)))
def test_what_is_left_shares_nothing_and_what_is_left_out_was_shared(
    splits: dict[str, list[tuple[str, str, str]]],
) -> None:
    tables = {split: table(*rows) for split, rows in splits.items()}
    kept = without_shared(tables)
    assert shared(kept) == []
    for split, found in kept.items():
        before = ORDER[: ORDER.index(split)]
        others = [keys_of(f) for other in before if other in tables for f in tables[other].to_pylist()]
        for fact in tables[split].to_pylist():
            mine = keys_of(fact)
            hit = any(mine[kind] == other[kind] for other in others for kind in mine)
            assert (fact in found.to_pylist()) is not hit
