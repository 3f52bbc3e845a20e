"""Facts: reading EntityQuestions and users' own, topics, prompts, mastery, training sets."""

from __future__ import annotations

import json
import zipfile
from fractions import Fraction
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sftlab.errors import UserError
from sftlab.facts.entity_questions import SOURCES, read_tables
from sftlab.facts.mastery import bucket_of, contains_answer, row_seed
from sftlab.facts.prepare import left_out, read_source, write_facts
from sftlab.facts.prompts import answer_target, question_prompt
from sftlab.facts.table import COLUMNS, fact_id, facts_table, read_facts, synonyms
from sftlab.facts.templates import Topic, load_topics, parse_topics, published_topics, read_topics
from sftlab.facts.user_facts import read_user_tables
from tests.support.full_disk import file_size_limit
from tests.support.refusals import refused


def archive(folder: Path, rows: dict[tuple[str, str], list[dict[str, object]]]) -> Path:
    """An EntityQuestions zip in which every topic has the rows given for (split, topic), or none."""
    path = folder / "eq.zip"
    with zipfile.ZipFile(path, "w") as out:
        for split in ("train", "test", "dev"):
            for topic in published_topics():
                text = json.dumps(rows.get((split, topic), []))
                out.writestr(f"dataset/{split}/{topic}.{split}.json", text)
    return path


def test_the_study_s_24_topics_have_21_templates_each() -> None:
    topics = published_topics()
    assert len(topics) == 24
    assert sum(t.domain == "in-domain" for t in topics.values()) == 10
    assert {len(t.templates) for t in topics.values()} == {21}
    assert len(synonyms()) == 29


def test_rows_with_one_answer_are_kept_and_questions_repeat_over_topics_only_once(tmp_path: Path) -> None:
    one = {"question": "Where is Riga located?", "answers": ["Latvia"]}
    two = {"question": "Where is Oslo located?", "answers": ["Norway", "Europe"]}
    rows = {("train", "P131"): [one, one, two], ("train", "P276"): [one]}
    tables = read_tables(archive(tmp_path, rows), published_topics(), synonyms())
    assert tables["train"].to_pylist() == [
        {
            "fact_id": fact_id("P131", "Riga", "Latvia"),
            "topic": "P131",
            "subject": "Riga",
            "object": "Latvia",
            "accepted": ["Latvia"],
            "question": "Where is Riga located?",
        }
    ]
    assert set(tables) == set(SOURCES)


def test_out_of_domain_topics_go_to_the_ood_splits_and_never_to_train(tmp_path: Path) -> None:
    row = {"question": "Who founded Zyn?", "answers": ["United States of America"]}
    tables = read_tables(
        archive(tmp_path, {(s, "P112"): [row] for s in ("train", "test", "dev")}),
        published_topics(),
        synonyms(),
    )
    counts = {split: table.num_rows for split, table in tables.items()}
    assert counts == {"train": 0, "test": 0, "test_ood": 1, "dev": 0, "dev_ood": 1}
    assert tables["test_ood"]["accepted"].to_pylist() == [
        ["United States of America", "USA", "United States"]
    ]


def test_an_unpacked_folder_reads_like_its_zip(tmp_path: Path) -> None:
    path = archive(tmp_path, {("test", "P36"): [{"question": "What is the capital of X?", "answers": ["Y"]}]})
    zipfile.ZipFile(path).extractall(tmp_path / "unpacked")
    from_zip = read_tables(path, published_topics(), {})
    assert read_tables(tmp_path / "unpacked", published_topics(), {}) == from_zip
    assert from_zip["test"].num_rows == 1


def test_topics_of_an_archive_without_templates_are_told(tmp_path: Path) -> None:
    path, topics = archive(tmp_path, {}), published_topics()
    zipfile.ZipFile(path).extractall(tmp_path / "unpacked")
    few = {name: topic for name, topic in topics.items() if name not in ("P36", "P131")}
    for source in (path, tmp_path / "unpacked"):
        assert left_out(source, topics) == ""
        told = f"{source}: left out, as there are no templates for them: the topics 'P131', 'P36'."
        assert left_out(source, few) == told
    assert left_out(tmp_path / "own.jsonl", few) == ""


def test_prepared_tables_are_read_back(tmp_path: Path) -> None:
    path = archive(tmp_path, {("test", "P36"): [{"question": "What is the capital of X?", "answers": ["Y"]}]})
    counts = write_facts(*read_source(path, None), tmp_path / "facts")
    assert counts["test"] == {"P36": 1} and counts["train"] == {}
    assert read_facts(tmp_path / "facts", "test").column_names == list(COLUMNS)
    assert load_topics(tmp_path / "facts" / "topics.json") == published_topics()
    assert read_topics(tmp_path / "facts") == published_topics()


@pytest.mark.parametrize(
    ("member", "text", "message"),
    [
        ("dataset/train/P17.train.json", "[1", "is not valid JSON"),
        ("dataset/train/P17.train.json", "{}", "expected a list"),
        ("dataset/train/P17.train.json", '[{"question": 3}]', "row 1"),
        ("dataset/train/P17.train.json", '[{"question": "Why?", "answers": ["a"]}]', "does not read"),
        ("dataset/train/P17.train.json", '[{"question": "Why?", "answers": "a"}]', "answers"),
        (
            "dataset/train/P17.train.json",
            '[{"question": "Why?", "answers": []}]',
            "row 1, field 'answers': .*non-empty",
        ),
        (
            "dataset/train/P17.train.json",
            '[{"question": "Why?", "answers": [" "]}]',
            "row 1, field 'answers'",
        ),
        (
            "dataset/train/P17.train.json",
            '[{"question": "Which country is   located in?", "answers": ["a"]}]',
            "row 1, field 'question': .* names no subject",
        ),
        ("dataset/train/P17.train.json", "[" * 100_000, r"P17.train.json: .* nested too deeply"),
        ("dataset/train/P17.train.json", r'[{"question": "\ud800"}]', "half of a character"),
        ("../train/P17.train.json", "[]", "climbs out"),
        ("something.txt", "hello", "not the EntityQuestions archive"),
        ("dataset/train/P999.train.json", "[]", "is missing in the archive"),
    ],
)
def test_wrong_archives_are_refused_with_the_place_named(
    tmp_path: Path, member: str, text: str, message: str
) -> None:
    path = tmp_path / "eq.zip"
    with zipfile.ZipFile(path, "w") as out:
        out.writestr(member, text)
    with pytest.raises(UserError, match=message):
        read_tables(path, published_topics(), {})


def test_a_damaged_zip_is_refused(tmp_path: Path) -> None:
    path = archive(
        tmp_path, {("train", "P17"): [{"question": "Which country is A located in?", "answers": ["B"]}]}
    )
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(UserError, match="not a readable zip"):
        read_source(path, None)
    at = whole.index(b"Which country")
    path.write_bytes(whole[:at] + b"XXXXX" + whole[at + 5 :])
    with pytest.raises(UserError, match="is damaged"):
        read_source(path, None)
    with pytest.raises(UserError, match="not found"):
        read_source(tmp_path / "absent.zip", None)


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [(6, 1, "cannot be unpacked .*is encrypted"), (8, 77, "cannot be unpacked .*compression")],
)
def test_members_that_cannot_be_unpacked_are_named(
    tmp_path: Path, field: int, value: int, message: str
) -> None:
    """Sets a flag, or the number of the compression, in the headers of every member."""
    path = archive(tmp_path, {})
    whole = bytearray(path.read_bytes())
    for header, offset in ((b"PK\3\4", field), (b"PK\1\2", field + 2)):
        at = whole.find(header)
        while at >= 0:
            whole[at + offset] = value
            at = whole.find(header, at + 1)
    path.write_bytes(whole)
    with pytest.raises(UserError, match=rf"eq.zip:train/P17.train.json: {message}"):
        read_tables(path, published_topics(), {})


def test_user_facts_in_jsonl_and_parquet_give_the_same_tables(tmp_path: Path) -> None:
    rows = [
        {"subject": "Riga", "object": "Latvia", "topic": "P17", "split": "train", "accepted": ["Latvija"]},
        {"subject": "Dune", "object": "Herbert", "topic": "P50", "split": "test", "accepted": None},
    ]
    (tmp_path / "f.jsonl").write_text("\n".join(json.dumps(r) for r in rows))
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "f.parquet")
    tables = read_user_tables(tmp_path / "f.jsonl", published_topics())
    assert tables == read_user_tables(tmp_path / "f.parquet", published_topics())
    assert tables["train"]["accepted"].to_pylist() == [["Latvia", "Latvija"]]
    assert tables["test_ood"]["question"].to_pylist() == ["Who is the author of Dune?"]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('{"subject": "", "object": "b", "topic": "P17"}', "field 'subject'"),
        ('{"subject": "a", "topic": "P17"}', "field 'object'"),
        ('{"subject": "a", "object": "b", "topic": "P0"}', "no templates"),
        ('{"subject": "a", "object": "b", "topic": "P17", "split": "exam"}', "field 'split'"),
        ('{"subject": "a", "object": "b", "topic": "P50", "split": "train"}', "never trained on"),
        ('{"subject": "a", "object": "b", "topic": "P17", "accepted": [1]}', "field 'accepted'"),
        ("[]", "expected an object"),
        ("{", "line 2"),
        ('{"subject": "x", "object": "b", "topic": "P17"}', "is already in"),
        ('{"subject": "x", "object": "other", "topic": "P17"}', "is already in"),
        (
            '{"subject": "a", "object": "b", "topic": "P17", "acepted": ["c"]}',
            "line 2: unknown field 'acepted'; did you mean 'accepted'",
        ),
        (
            '{"subject": "a", "object": "b", "topic": "P17", "x": 1}',
            "unknown field 'x'; known keys are subject",
        ),
        (r'{"subject": "\ud800", "object": "b", "topic": "P17"}', "line 2: .* half of a character"),
        ("[" * 100_000, "line 2: .* nested too deeply"),
        ("1" * 5_000, "line 2: is not valid JSON"),
    ],
)
def test_wrong_user_facts_are_refused_with_line_and_field(tmp_path: Path, line: str, message: str) -> None:
    path = tmp_path / "f.jsonl"
    path.write_text('{"subject": "x", "object": "b", "topic": "P17"}\n' + line)
    with pytest.raises(UserError, match=message) as error:
        read_user_tables(path, published_topics())
    assert str(path) in str(error.value)


def test_a_byte_order_mark_before_the_first_fact_is_no_part_of_it(tmp_path: Path) -> None:
    path = tmp_path / "f.jsonl"
    path.write_text('{"subject": "a", "object": "b", "topic": "P17", "split": "dev"}', encoding="utf-8-sig")
    assert read_user_tables(path, published_topics())["dev"]["subject"].to_pylist() == ["a"]


def test_facts_that_cannot_be_written_name_the_file_and_leave_nothing(tmp_path: Path) -> None:
    rows = [{"question": f"What is the capital of {i}?", "answers": ["Y"]} for i in range(20_000)]
    source = archive(tmp_path, {("test", "P36"): rows, ("train", "P36"): rows[:10]})
    with file_size_limit(100_000), pytest.raises(UserError, match=r"facts/test.parquet: cannot be written"):
        write_facts(*read_source(source, None), tmp_path / "facts")
    assert not (tmp_path / "facts").exists()


def test_a_failed_second_writing_keeps_the_first_facts_whole(tmp_path: Path) -> None:
    rows = [{"question": f"What is the capital of {i}?", "answers": ["Y"]} for i in range(20_000)]
    tables, topics = read_source(archive(tmp_path, {("train", "P36"): rows[:1]}), None)
    write_facts(tables, topics, tmp_path / "facts")
    before = {path.name: path.read_bytes() for path in (tmp_path / "facts").iterdir()}
    others, _ = read_source(archive(tmp_path, {("train", "P36"): rows[:2], ("test", "P36"): rows}), None)
    with file_size_limit(100_000), pytest.raises(UserError, match=r"test.parquet: .* File too large"):
        write_facts(others, topics, tmp_path / "facts")
    assert {path.name: path.read_bytes() for path in (tmp_path / "facts").iterdir()} == before


def test_a_file_in_the_way_of_the_output_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    for output, message in (("file", "a file is in the way"), ("file/x", "Not a directory")):
        with pytest.raises(UserError, match=rf"{output}: cannot be made a folder: {message}"):
            write_facts({}, {}, tmp_path / output)


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"topic": "T", "question": "Who is {subject}?", "templates": []}, "no templates"),
        ({"topic": "T", "question": "Who is {subject}?", "templates": ["x is"]}, "template 1"),
        ({"topic": "T", "question": "Who?", "templates": ["{subject} is"]}, "question"),
        ({"topic": "T", "question": "{subject}?", "templates": ["{subject} {subject}"]}, "exactly once"),
        ({"topic": "T", "templates": ["{subject} is"]}, "lacks question"),
        (
            {"topic": "T", "question": "{subject}?", "templates": ["{subject}"], "dommain": "x"},
            "unknown field 'dommain'; did you mean 'domain'",
        ),
        (
            {"topic": "T", "qestion": "{subject}?", "templates": ["{subject}"]},
            "unknown field 'qestion'; did you mean 'question'",
        ),
        (
            {"topic": "", "question": "{subject}?", "templates": ["{subject}"]},
            "field 'topic': expected a non-empty",
        ),
        ({"topic": 17, "question": "{subject}?", "templates": ["{subject}"]}, "found 17"),
        (
            {
                "topic": "T",
                "question": "{subject}?",
                "templates": ["{subject} a", "{subject}", "{subject} a"],
            },
            r"topic 1, field 'template 3': \(T\) '{subject} a' is listed twice",
        ),
        ({"topic": "T", "question": "{subject}?", "templates": ["{subject}"], "domain": "x"}, "domain"),
    ],
)
def test_wrong_topics_are_refused(row: dict[str, object], message: str) -> None:
    with pytest.raises(UserError, match=message):
        parse_topics([row], "topics.yaml")


@pytest.mark.parametrize("rows", [{"topic": "T"}, [], None])
def test_a_file_without_a_list_of_topics_is_refused(rows: object) -> None:
    with refused(place="topics.yaml", value=rows, expected="a list of topics"):
        parse_topics(rows, "topics.yaml")


def test_a_topic_listed_twice_is_refused() -> None:
    row = {"topic": "T", "question": "{subject}?", "templates": ["{subject} is"]}
    with pytest.raises(UserError, match="twice"):
        parse_topics([row, row], "topics.yaml")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("- {topic: T, topic: U}", "key 'topic' is given twice"),
        ("[" * 100_000, "nested too deeply"),
        ("- 2020-13-01", "is not valid YAML"),
        ("- [", "is not valid YAML"),
    ],
)
def test_files_of_topics_that_are_no_yaml_are_named(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "topics.yaml").write_text(text)
    with pytest.raises(UserError, match=message) as error:
        load_topics(tmp_path / "topics.yaml")
    assert "topics.yaml" in str(error.value)


@given(st.text(min_size=1))
def test_the_subject_is_what_the_question_asks_for(subject: str) -> None:
    topic = Topic("T", "in-domain", "Where is {subject} located?", ("{subject} is in",))
    assert topic.subject_of(topic.ask(subject)) == subject
    assert topic.subject_of("Where is  locate?") is None


def test_the_prompt_is_the_study_s() -> None:
    assert question_prompt(" Where? ") == "<|question|> Where? <|answer|>"
    assert answer_target("Riga ") == " Riga "


def test_an_answer_counts_where_an_accepted_name_is_contained() -> None:
    assert contains_answer(" the USA, of course", ["United States", "USA"])
    assert not contains_answer(" usa", ["USA"])


@given(st.integers(1, 5000), st.data())
def test_buckets_follow_the_paper_s_intervals(completions: int, data: st.DataObject) -> None:
    hits = data.draw(st.integers(0, completions))
    rate = Fraction(hits, completions)
    bucket = bucket_of(hits, completions)
    if rate == 0:
        assert bucket == 0
    else:
        assert Fraction(bucket - 1, 4) < rate <= Fraction(bucket, 4)


def test_seeds_of_rows_differ_and_stay_in_range() -> None:
    seeds = {row_seed(s, f, t) for s in (0, 1) for f in ("a", "b") for t in range(21)}
    assert len(seeds) == 84 and all(0 <= seed < 2**30 for seed in seeds)


def test_a_table_with_a_column_of_another_type_is_refused_by_name(tmp_path: Path) -> None:
    row = dict.fromkeys(COLUMNS, "x") | {"accepted": ["x"]}
    table = facts_table([row])
    pq.write_table(table, tmp_path / "train.parquet")
    assert read_facts(tmp_path, "train") == table
    at = table.schema.get_field_index("subject")
    pq.write_table(table.set_column(at, "subject", pa.array([7])), tmp_path / "train.parquet")
    with refused("column subject holds int64", place="train.parquet", expected="string"):
        read_facts(tmp_path, "train")
