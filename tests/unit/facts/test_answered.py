"""Facts whose question contains the answer: counted for every source, and left out of all splits on wish."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa

from sftlab.facts.doubts import answered, without_answered
from sftlab.facts.prepare import excluded, notices, read_source
from sftlab.facts.table import facts_table
from sftlab.studies.knowledge.plan import Plan
from sftlab.studies.knowledge.sources import resolve
from sftlab.studies.knowledge.spec import FactsSpec, StudySpec
from tests.unit.facts.test_facts import archive

LOUD = {"question": "Which country is Oslo Airport, Norway located in?", "answers": ["Norway"]}
QUIET = {"question": "Which country is Riga located in?", "answers": ["Latvia"]}
CASE = {"question": "Which country is norway house located in?", "answers": ["Norway"]}
ROWS: dict[tuple[str, str], list[dict[str, object]]] = {
    ("train", "P17"): [LOUD, QUIET, CASE],
    ("test", "P17"): [LOUD | {"question": "Which country is Norway Tower located in?"}],
    ("dev", "P17"): [QUIET | {"question": "Which country is Ogre located in?"}],
}


def study(source: Path, **facts: object) -> StudySpec:
    given = {"source": str(source), **facts}
    return StudySpec.model_validate(
        {"name": "s", "facts": given, "model": {"path": str(source.parent / "m")}}
    )


def test_an_archive_s_answers_that_their_questions_contain_are_counted(tmp_path: Path) -> None:
    source = archive(tmp_path, ROWS)
    tables, topics = read_source(source, None)
    (line,) = [line for line in notices(source, tables, topics) if "question contains" in line]
    assert line.startswith(f"{source}: 2 facts have an answer that the question contains")
    assert "set facts.exclude_answered to leave them out" in line and line.endswith(
        "(such as 'Norway' of 'Oslo Airport, Norway': Norway)"
    )
    rest = without_answered(tables)
    assert rest["train"]["object"].to_pylist() == ["Latvia", "Norway"]  # another letter case is no answer
    assert (rest["test"].num_rows, rest["dev"].num_rows) == (0, 1)
    assert answered(rest) == []


def test_an_accepted_name_that_is_not_the_answer_counts_too() -> None:
    row = {
        "fact_id": "1",
        "topic": "t",
        "subject": "s",
        "object": "United States",
        "question": "Is s in the US?",
    }
    plain = {"test": facts_table([row | {"accepted": ["United States"]}])}
    alias = {"test": facts_table([row | {"accepted": ["United States", "US"]}])}
    assert without_answered(plain)["test"] == plain["test"] and answered(plain) == []
    assert without_answered(alias)["test"].num_rows == 0 and len(answered(alias)) == 1


def test_a_fact_that_is_left_out_of_test_leaves_its_place_in_train() -> None:
    def split(question: str) -> pa.Table:
        fact = {"fact_id": "1", "topic": "t", "subject": "Lima Peru", "object": "Peru", "accepted": ["Peru"]}
        return facts_table([fact | {"question": question}])

    tables = {"train": split("Where is it?"), "test": split("Where is Lima Peru?")}
    rows = {name: table.num_rows for name, table in excluded(tables, True, True).items()}
    assert rows == {"train": 1, "test": 0}
    assert excluded(tables, None, None) == tables


def test_a_study_plans_without_them_and_its_id_moves_only_where_it_is_set(tmp_path: Path) -> None:
    source = archive(tmp_path, ROWS)
    found = {}
    for flag in (None, False, True):
        spec = study(source, exclude_answered=flag, in_domain=["P17"])
        sources = resolve(spec, tmp_path / "store")
        found[flag] = (
            Plan(spec, sources).facts.id,
            sources.fact_counts["train"],
            sources.fact_counts["test"],
        )
    assert found[None] == found[False] and found[None][1:] == (3, 1) and found[True][1:] == (2, 0)
    assert found[True][0] != found[None][0]
    assert FactsSpec(source="x", exclude_answered=False).exclude_answered is None
    assert resolve(study(source, exclude_answered=True), tmp_path / "store").fact_counts["train"] == 2
