"""Custom facts as people save them: file endings, forms of text, dataframes, doubtful answers."""

from __future__ import annotations

import gzip
import json
import unicodedata
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sftlab.errors import UserError
from sftlab.facts.doubts import doubts
from sftlab.facts.fact_files import is_own_facts, rows_of
from sftlab.facts.mastery import contains_answer
from sftlab.facts.prepare import notices, read_source
from sftlab.facts.templates import Topic, published_topics
from sftlab.facts.text import cleaned, hidden, identity
from sftlab.facts.user_facts import read_user_facts, read_user_tables
from sftlab.measurements.spec import AnswerSpec, MasterySpec
from sftlab.store.fingerprint import canonical
from tests.support.refusals import refused

TOPICS = {
    "capital": Topic(
        "capital", "in-domain", "What is the capital of {subject}?", ("{subject}'s capital is",)
    ),
    "symbol": Topic("symbol", "in-domain", "What is the symbol of {subject}?", ("{subject} is written",)),
}
ROWS = [
    {"subject": "Peru", "object": "Lima", "topic": "capital", "split": "train"},
    {"subject": "Togo", "object": "Lomé", "topic": "capital", "split": "test", "accepted": ["Lome"]},
]


def written(path: Path, *rows: dict[str, Any]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def fact(folder: Path, **fields: Any) -> dict[str, Any]:
    """The one fact of a file, whatever its split."""
    row = {"subject": "Togo", "object": "Lomé", "topic": "capital"} | fields
    tables = read_user_tables(written(folder / "f.jsonl", row), TOPICS)
    (found,) = [found for table in tables.values() for found in table.to_pylist()]
    return dict(found)


# ---- files


@pytest.mark.parametrize(
    "name", ["f.jsonl", "f.ndjson", "F.JSONL", "f.json", "f.jsonl.gz", "f.json.gz", "lines.json", "f.parquet"]
)
def test_the_ending_of_a_file_says_how_it_is_read(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    if name == "f.parquet":
        pq.write_table(pa.Table.from_pylist([{"accepted": None} | row for row in ROWS]), path)
    else:
        is_list = name.startswith("f.json") and ".jsonl" not in name
        text = json.dumps(ROWS) if is_list else "\n".join(map(json.dumps, ROWS))
        path.write_bytes(gzip.compress(text.encode()) if name.endswith(".gz") else text.encode())
    assert is_own_facts(path)
    tables = read_user_tables(path, TOPICS)
    assert tables["train"]["object"].to_pylist() == ["Lima"]
    assert tables["test"]["accepted"].to_pylist() == [["Lomé", "Lome", "Lome\u0301"]]


@pytest.mark.parametrize(
    ("name", "call"),
    [
        ("f.csv", "pandas.read_csv('f.csv').to_json('f.jsonl', orient='records', lines=True"),
        ("f.tsv", "pandas.read_csv('f.tsv', sep='\\t')"),
        ("f.xlsx", "pandas.read_excel('f.xlsx')"),
        ("f.arrow", "polars.read_ipc('f.arrow').write_ndjson('f.jsonl')"),
        ("f.txt", ""),
        ("f", "ending in 'nothing'"),
        ("f.csv.gz", "pandas.read_csv('f.csv.gz')"),
        ("f.jsonl.zst", "give .jsonl, .ndjson or .json (each also as .gz), or .parquet"),
    ],
)
def test_other_files_are_refused_by_their_name_with_the_call_that_converts_them(
    tmp_path: Path, name: str, call: str
) -> None:
    written(tmp_path / name, *ROWS)
    with pytest.raises(UserError, match="is not read as facts") as error:
        read_source(tmp_path / name, None)
    assert call in str(error.value) and "zip file" not in str(error.value)


def test_a_calls_output_is_read(tmp_path: Path) -> None:
    """The conversion that is printed for CSV gives what is read."""
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame(ROWS)[["subject", "object", "topic"]]
    frame.to_csv(tmp_path / "f.csv", index=False)
    converted = tmp_path / "f.jsonl"
    pandas.read_csv(tmp_path / "f.csv").to_json(converted, orient="records", lines=True, force_ascii=False)
    assert sum(table.num_rows for table in read_user_tables(converted, TOPICS).values()) == 2


@pytest.mark.parametrize("name", ["f.jsonl", "f.json"])
def test_a_key_that_is_given_twice_is_named(tmp_path: Path, name: str) -> None:
    line = '{"subject": "A", "object": "x", "object": "y", "topic": "capital"}'
    first = '{"subject": "B", "object": "x", "topic": "capital"}'
    (tmp_path / name).write_text(f"[{first},\n {line}]" if name == "f.json" else f"{first}\n{line}")
    with refused(
        "key 'object' is given twice", place="row 2" if name == "f.json" else "line 2", value="object"
    ):
        read_user_tables(tmp_path / name, TOPICS)


@given(st.lists(st.integers(0, 3) | st.text('[]{},"\\ é', max_size=4), max_size=5), st.data())
def test_the_row_of_a_list_that_is_wrong_is_named_wherever_it_is(
    tmp_path_factory: pytest.TempPathFactory, rows: list[Any], data: st.DataObject
) -> None:
    """Also behind texts with brackets and commas; a list that is broken itself is refused by its file."""
    path = tmp_path_factory.getbasetemp() / "f.json"
    at = data.draw(st.integers(0, len(rows)))
    items = [json.dumps(row, indent=data.draw(st.sampled_from([None, 1]))) for row in rows]
    items.insert(
        at, data.draw(st.sampled_from(['{"a": 1, "a": 2}', '"\\ud800"', '{"b": [{"a": 1, "a": 1}]}']))
    )
    text = f" [{data.draw(st.sampled_from([',', ' ,' + chr(10)])).join(items)}]"
    with refused("given twice|half of a character", place=f"f.json, row {at + 1}"):
        path.write_text(text)
        list(rows_of(path))
    with refused("is not valid JSON", place="f.json"):
        path.write_text("[1, 2")
        list(rows_of(path))


# ---- dataframes


def table_of(
    column: Callable[[list[str | None]], pa.Array], lists: Callable[[list[Any]], pa.Array]
) -> pa.Table:
    names = ("subject", "object", "topic", "split")
    columns = {name: column([row[name] for row in ROWS]) for name in names}  # type: ignore[misc]
    return pa.table(columns | {"accepted": lists([row.get("accepted") for row in ROWS])})


TEXTS = {
    "string": lambda v: pa.array(v, pa.string()),
    "large_string": lambda v: pa.array(v, pa.large_string()),
    "string_view": lambda v: pa.array(v, pa.string_view()),
    "categorical int8": lambda v: pa.array(v).dictionary_encode().cast(pa.dictionary(pa.int8(), pa.string())),
    "enum uint32 large": lambda v: (
        pa.array(v, pa.large_string()).dictionary_encode().cast(pa.dictionary(pa.uint32(), pa.large_string()))
    ),
    "ordered": lambda v: pa.DictionaryArray.from_arrays(
        pa.array(v).dictionary_encode().indices, pa.array(v).dictionary_encode().dictionary, ordered=True
    ),
}
LISTS = {
    "list": lambda v: pa.array(v, pa.list_(pa.string())),
    "list named item": lambda v: pa.array(v, pa.list_(pa.field("item", pa.string()))),
    "large_list": lambda v: pa.array(v, pa.large_list(pa.large_string())),
    "list of views": lambda v: pa.array(v, pa.list_(pa.string_view())),
    # Arrow itself cannot read such a column with nulls.
    "fixed": lambda v: pa.array([names or ["Lima"] for names in v], pa.list_(pa.string(), 1)),
}


@pytest.mark.parametrize("text", TEXTS)
@pytest.mark.parametrize("names", LISTS)
def test_columns_are_read_by_what_they_hold(tmp_path: Path, text: str, names: str) -> None:
    expected = read_user_tables(written(tmp_path / "f.jsonl", *ROWS), TOPICS)
    pq.write_table(table_of(TEXTS[text], LISTS[names]), tmp_path / "f.parquet")
    assert read_user_tables(tmp_path / "f.parquet", TOPICS) == expected


def test_dataframes_with_an_index_and_an_id_are_read(tmp_path: Path) -> None:
    pandas = pytest.importorskip("pandas")
    expected = read_user_tables(written(tmp_path / "f.jsonl", *ROWS), TOPICS)
    path = tmp_path / "f.parquet"
    frame = pandas.DataFrame(ROWS).assign(id=[7, 8])
    frame["accepted"] = frame["accepted"].where(frame["accepted"].notna(), None)
    frame["topic"] = frame["topic"].astype("category")
    for index in (["a", "b"], pandas.Index([3, 4], name="number")):
        frame.index = index
        frame.to_parquet(path)
        assert read_user_tables(path, TOPICS) == expected
    frame.set_index("subject").to_parquet(path)  # an index that is a field is read
    assert read_user_tables(path, TOPICS) == expected


@pytest.mark.parametrize(
    ("column", "values", "call"),
    [
        ("object", pa.array([1, 2]), "df['object'].astype(str)"),
        ("object", pa.array([b"a", b"b"]), "cast(pl.String)"),
        ("object", pa.array([1, 1]).dictionary_encode(), "df['object'].astype(str)"),
        ("accepted", pa.array(["a|b", "c"]), "df['accepted'].str.split('|')"),
        ("accepted", pa.array([[1], [2]]), "pl.List(pl.String)"),
        ("note", pa.array(["x", "y"]), "df.drop(columns='note')"),
    ],
)
def test_other_columns_are_refused_with_the_call_that_repairs_them(
    tmp_path: Path, column: str, values: pa.Array, call: str
) -> None:
    table = pa.Table.from_pylist([{"subject": "a", "object": "b", "topic": "capital"}] * 2)
    if column in table.column_names:
        table = table.drop_columns(column)
    pq.write_table(table.append_column(column, values), tmp_path / "f.parquet")
    with pytest.raises(UserError, match=f"'{column}'") as error:
        read_user_tables(tmp_path / "f.parquet", TOPICS)
    assert call in str(error.value)


# ---- text


FORMS = ("NFC", "NFD")
NAMES = st.sampled_from(["Lomé", "Brasília", "São Tomé", "Hà Nội", "Ōsaka", "가나", "Lima"])
MARKED = st.text("aeoĕạ가\u0301\u0327 ", min_size=1, max_size=5).filter(lambda name: cleaned(name) != "")


@given(NAMES | MARKED, NAMES | MARKED, st.sampled_from(FORMS), st.sampled_from(FORMS), st.booleans())
def test_answers_in_either_form_are_found_whichever_form_a_model_writes(
    tmp_path_factory: pytest.TempPathFactory, name: str, other: str, given: str, written: str, whole: bool
) -> None:
    names = [unicodedata.normalize(given, one) for one in (name, other)]
    found = fact(tmp_path_factory.getbasetemp(), object=names[0], accepted=names[1:])
    assert found["object"] == found["accepted"][0] == cleaned(name)
    for one in (name, other):
        completion = f" {unicodedata.normalize(written, cleaned(one))}."
        assert contains_answer(completion, found["accepted"], whole_words=whole)
    assert {unicodedata.normalize("NFC", one) for one in found["accepted"]} == {
        unicodedata.normalize("NFC", one) for raw in names for one in (cleaned(raw), raw.strip())
    }


@pytest.mark.parametrize(
    "text",
    ["\u200b", " \ufeff", "\u00ad", "\u3164", "\u2800", "\u200e\u200f", "\u2060", "\x00", "\ufe0f", "\u00a0"],
)
@pytest.mark.parametrize("field", ["subject", "object", "accepted"])
def test_texts_that_show_nothing_are_refused(tmp_path: Path, text: str, field: str) -> None:
    with pytest.raises(UserError, match=f"field '{field}': expected .*visible characters"):
        fact(tmp_path, **{field: [text] if field == "accepted" else text})


@given(st.text("ab \u0301é\u200b\ufeff\u00a0\n", max_size=6), st.sampled_from(["NFC", "NFD"]))
def test_a_cleaned_name_is_clean_and_names_the_same(name: str, form: str) -> None:
    once = cleaned(unicodedata.normalize(form, name))
    assert cleaned(once) == once == unicodedata.normalize("NFC", once)
    assert identity(once) == identity(name)


def test_blanks_around_names_are_left_out(tmp_path: Path) -> None:
    found = fact(tmp_path, object=" Naypyidaw", accepted=[" Nay Pyi Taw", "Pyinmana ", "\u200bNaypyidaw"])
    assert found["accepted"][:3] == ["Naypyidaw", "Nay Pyi Taw", "Pyinmana"]


@pytest.mark.parametrize("other", ["Co\u0302te", "Côte\u200b", " Côte", "Côte\u00a0", "\ufeffCôte"])
def test_a_subject_in_two_forms_is_one(tmp_path: Path, other: str) -> None:
    rows = [
        {"subject": "Côte", "object": "X", "topic": "capital", "split": "train"},
        {"subject": other, "object": "X", "topic": "capital", "split": "test"},
    ]
    with refused("is already in.*line 1", place="line 2", value="Côte", advice="keep one"):
        read_user_tables(written(tmp_path / "f.jsonl", *rows), TOPICS)


def test_aliases_of_table_12_are_those_of_entity_questions_alone(tmp_path: Path) -> None:
    path = written(
        tmp_path / "f.jsonl", {"subject": "A", "object": "United States of America", "topic": "P17"}
    )
    tables = read_user_tables(path, published_topics())
    (accepted,) = [names for table in tables.values() for names in table["accepted"].to_pylist()]
    assert accepted == ["United States of America"]


@pytest.mark.parametrize(
    ("row", "version"),
    [
        ({"object": "Lima"}, 1),
        ({"object": " Lima "}, 1),
        ({"object": "Lome", "accepted": ["Lome"]}, 1),
        ({"object": "Lome\u0301"}, 2),
        ({"object": "Lima", "accepted": ["Lima "]}, 2),
        ({"object": "Lima\u200b"}, 2),
        ({"object": "United States of America"}, 2),
        ({"object": "Lomé", "accepted": ["Lome"]}, 3),
        ({"object": "Lome", "accepted": ["Lomé"]}, 3),
    ],
)
def test_only_facts_that_are_read_otherwise_than_before_get_other_ids(
    tmp_path: Path, row: dict[str, Any], version: int
) -> None:
    path = written(tmp_path / "f.jsonl", {"subject": "A", "topic": "capital"} | row)
    assert read_user_facts(path, TOPICS).version == version


# ---- doubts and whole words


def test_doubtful_answers_are_counted_with_an_example(tmp_path: Path) -> None:
    rows = [
        ("Helium", "He", "symbol"),
        ("Tungsten", "W", "symbol"),
        ("Guatemala", "Guatemala City", "capital"),
        ("Gua", "Guatemala", "capital"),
        ("Japan", "東京", "capital"),
        ("Peru", "Li\u00adma", "capital"),
        ("Chile", "Santiago", "capital"),
    ]
    path = tmp_path / "f.jsonl"
    written(path, *({"subject": s, "object": o, "topic": t} for s, o, t in rows))
    tables = read_user_tables(path, TOPICS)
    lines = doubts(tables)
    assert len(lines) == 4
    assert lines[0].startswith("2 facts have an answer of at most 2 letters")
    assert lines[1].startswith("1 fact have an answer that is part of another") and "'Guatemala'" in lines[1]
    assert lines[1].endswith("'Gua': Guatemala City)")
    assert "the question contains" in lines[2] or "U+00AD" in lines[3]
    assert all(line.startswith(f"{path}: ") for line in notices(path, tables, TOPICS))
    clean = written(tmp_path / "g.jsonl", {"subject": "Chile", "object": "Santiago", "topic": "capital"})
    assert doubts(read_user_tables(clean, TOPICS)) == []


@pytest.mark.parametrize(
    ("text", "names", "within", "whole"),
    [
        (" Helium", ["He"], True, False),
        (" He.", ["He"], True, True),
        (" Helium (He)", ["He"], True, True),
        ("Guatemala City", ["Guatemala"], True, True),
        (" a1", ["1"], True, False),
        (" C++ is", ["C++"], True, True),
        (" éa", ["é"], True, False),
        (" x", ["y"], False, False),
    ],
)
def test_whole_words_are_an_option(text: str, names: list[str], within: bool, whole: bool) -> None:
    assert contains_answer(text, names) is within
    assert contains_answer(text, names, whole_words=True) is whole


@pytest.mark.parametrize("kind", [MasterySpec, AnswerSpec])
def test_whole_words_change_ids_only_where_they_are_set(kind: Any) -> None:
    default = canonical(kind().model_dump())
    assert canonical(kind(whole_words=False).model_dump()) == default
    assert canonical(kind(whole_words=True).model_dump()) != default
    assert hidden("a\u00adb c") == "U+00AD"
