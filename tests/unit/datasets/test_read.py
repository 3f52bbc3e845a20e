"""Data files: every format in every container, detection by columns, and what is refused."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sftlab.datasets import read
from sftlab.datasets.conversations import Conversation, Turn, UnusableError
from sftlab.datasets.read import open_rows
from sftlab.datasets.source import Source, open_data
from sftlab.datasets.spec import ColumnSpec, DataFileSpec
from sftlab.errors import UserError
from tests.support.refusals import refused

Row = Mapping[str, Any]

TWO = [
    {"role": "user", "content": "What is 1 + 2?"},
    {"role": "assistant", "content": "3"},
    {"role": "user", "content": "And 4?"},
    {"role": "assistant", "content": "7"},
]
FORMATS: dict[str, list[Row]] = {
    "messages": [{"messages": TWO, "id": "x"}],
    "sharegpt": [
        {
            "conversations": [
                {"from": "human" if turn["role"] == "user" else "gpt", "value": turn["content"]}
                for turn in TWO
            ]
        }
    ],
    "texts": [{"conversations": [turn["content"] for turn in TWO], "source": "lima"}],
    "alpaca": [{"instruction": "What is 1 + 2?", "input": "", "output": "3"}],
    "flan": [{"inputs": "What is 1 + 2?", "targets": "3", "task": "sums"}],
    "prompt-response": [{"prompt": "What is 1 + 2?", "completion": "3"}],
}
ONE_EXCHANGE = (Turn("user", "What is 1 + 2?"), Turn("assistant", "3", loss=True))
TWO_EXCHANGES = (*ONE_EXCHANGE, Turn("user", "And 4?"), Turn("assistant", "7", loss=True))


def as_lines(rows: Sequence[Row]) -> bytes:
    return "\n".join(json.dumps(row) for row in rows).encode()


def as_list(rows: Sequence[Row]) -> bytes:
    return json.dumps(rows, indent=2).encode()


CONTAINERS: dict[str, Callable[[Sequence[Row]], bytes]] = {
    "a.jsonl": as_lines,
    "a.ndjson": as_lines,
    "a.json": as_list,
    "lines.json": as_lines,
    "list.jsonl": as_list,
    "a.jsonl.gz": lambda rows: gzip.compress(as_lines(rows), mtime=0),
    "a.json.gz": lambda rows: gzip.compress(as_list(rows), mtime=0),
    "marked.jsonl": lambda rows: b"\xef\xbb\xbf" + as_lines(rows),
}


def written(folder: Path, name: str, rows: Sequence[Row]) -> Path:
    path = folder / name
    if name.endswith(".parquet"):
        pq.write_table(pa.Table.from_pylist(list(rows)), path)
    else:
        path.write_bytes(CONTAINERS[name](rows))
    return path


def opened(path: Path, **fields: Any) -> Source:
    return open_data(DataFileSpec(source=str(path), **fields))


def conversations(folder: Path, rows: Sequence[Row], **fields: Any) -> list[Conversation]:
    return list(opened(written(folder, "a.jsonl", rows), **fields).conversations())


def refusal(folder: Path, rows: Sequence[Row], **fields: Any) -> str:
    with pytest.raises(UserError) as caught:
        conversations(folder, rows, **fields)
    return str(caught.value).replace(str(folder), "")


@pytest.mark.parametrize("container", [*CONTAINERS, "a.parquet"])
@pytest.mark.parametrize("name", FORMATS)
def test_every_format_is_found_by_its_columns_in_every_container(
    tmp_path: Path, name: str, container: str
) -> None:
    source = opened(written(tmp_path, container, FORMATS[name]))
    found = list(source.conversations())
    assert source.detected.format == name
    assert [one.turns for one in found] == [
        TWO_EXCHANGES if "[" in json.dumps(FORMATS[name][0]) else ONE_EXCHANGE
    ]
    assert found[0].where == f"{tmp_path / container}, row 1"
    assert source.container == ("parquet" if container == "a.parquet" else source.container)
    assert (source.container == "JSON list") == (container in ("a.json", "list.jsonl", "a.json.gz"))


@pytest.mark.parametrize("name", FORMATS)
def test_a_named_format_is_the_one_that_is_found(tmp_path: Path, name: Any) -> None:
    assert conversations(tmp_path, FORMATS[name], format=name) == conversations(tmp_path, FORMATS[name])


@pytest.mark.parametrize("text", [pa.string(), pa.large_string(), pa.string_view()])
@pytest.mark.parametrize("many", [pa.list_, pa.large_list, pa.list_view])
def test_tables_are_read_by_meaning_whatever_their_types(tmp_path: Path, text: Any, many: Any) -> None:
    turn = pa.struct([("role", text), ("content", text)])
    table = pa.table({"messages": pa.array([TWO], many(turn)), "system": pa.array(["S"], text)})
    try:
        pq.write_table(table, tmp_path / "a.parquet")
    except pa.ArrowNotImplementedError:
        pytest.skip("parquet has no such type")
    (found,) = opened(tmp_path / "a.parquet").conversations()
    assert found.turns == (Turn("system", "S"), *TWO_EXCHANGES)


def test_a_dictionary_column_is_text(tmp_path: Path) -> None:
    table = pa.table({"prompt": pa.array(["q", "q"]).dictionary_encode(), "response": ["a", "b"]})
    pq.write_table(table, tmp_path / "a.parquet")
    assert [one.turns[1].text for one in opened(tmp_path / "a.parquet").conversations()] == ["a", "b"]


def test_input_follows_the_instruction_after_a_line_break_and_an_empty_one_is_left_out(
    tmp_path: Path,
) -> None:
    rows = [
        {"instruction": "Add. ", "input": " 1, 2\n", "output": " 3 ", "system": "Be brief."},
        {"instruction": "Say hi.", "input": None, "output": "Hi", "system": ""},
    ]
    assert [one.turns for one in conversations(tmp_path, rows)] == [
        (Turn("system", "Be brief."), Turn("user", "Add.\n1, 2"), Turn("assistant", "3", loss=True)),
        (Turn("user", "Say hi."), Turn("assistant", "Hi", loss=True)),
    ]


def test_flan_rows_without_an_answer_are_left_out_and_counted_unless_asked_for(tmp_path: Path) -> None:
    rows = [{"inputs": f"q{n}", "targets": target} for n, target in enumerate(["None", "none ", "yes"])]
    source = opened(written(tmp_path, "a.jsonl", rows))
    assert [one.prompt for one in source.conversations()] == ["q2"]
    assert source.dropped == {"response 'None'": 1, "response 'none'": 1}
    assert source.rows == 3
    assert [one.prompt for one in conversations(tmp_path, rows, drop_responses=())] == ["q0", "q1", "q2"]


def test_where_keeps_rows_with_one_of_the_values_and_compares_types_too(tmp_path: Path) -> None:
    rows = [
        {"prompt": f"q{n}", "answer": "a", "task": task} for n, task in enumerate(["x", "y", 1, True, None])
    ]
    assert [one.prompt for one in conversations(tmp_path, rows, where={"task": ("x", 1)})] == ["q0", "q2"]
    message = refusal(tmp_path, rows, where={"tasks": ("x",)})
    assert message == "/a.jsonl: has no column 'tasks', which `where` compares; did you mean 'task'?"


def test_custom_columns_are_read_and_the_others_named_as_not_read(tmp_path: Path) -> None:
    rows = [{"q": "ask", "a": "say", "extra": 1, "more": "ctx"}]
    source = opened(
        written(tmp_path, "a.jsonl", rows), columns=ColumnSpec(prompt="q", response="a", input="more")
    )
    assert [one.turns for one in source.conversations()] == [
        (Turn("user", "ask\nctx"), Turn("assistant", "say", loss=True))
    ]
    assert source.unread_columns == ["extra"]
    chat = [{"dialog": [{"from": "human", "value": "hi"}, {"from": "gpt", "value": "ho"}]}]
    (found,) = conversations(tmp_path, chat, columns=ColumnSpec(messages="dialog"))
    assert found.turns == (Turn("user", "hi"), Turn("assistant", "ho", loss=True))
    message = refusal(tmp_path, rows, columns=ColumnSpec(prompt="q", response="moar"))
    assert message == "/a.jsonl: has no column 'moar', which columns.response names; did you mean 'more'?"


def test_turns_first_keeps_the_first_exchange_and_the_system_text(tmp_path: Path) -> None:
    turns = [{"role": "developer", "content": "S"}, *TWO[:3]]
    (found,) = conversations(tmp_path, [{"messages": turns}], turns="first")
    assert found.turns == (Turn("system", "S"), *ONE_EXCHANGE)
    (prepended,) = conversations(tmp_path, [{"messages": turns}], turns="first", system="prepend")
    assert prepended.turns == (Turn("user", "S\nWhat is 1 + 2?"), ONE_EXCHANGE[1])
    (dropped,) = conversations(tmp_path, [{"messages": turns}], turns="first", system="drop")
    assert dropped.turns == ONE_EXCHANGE


def test_a_weight_of_zero_takes_the_loss_away_and_what_follows_the_last_loss_is_cut(tmp_path: Path) -> None:
    first = [{**TWO[0], "weight": None}, {**TWO[1], "weight": 0}, *TWO[2:]]
    (found,) = conversations(tmp_path, [{"messages": first}])
    assert [turn.loss for turn in found.turns] == [False, False, False, True]
    (cut,) = conversations(tmp_path, [{"messages": [*TWO[:3], {**TWO[3], "train": False}]}])
    assert cut.turns == ONE_EXCHANGE
    assert "no response is trained" in refusal(tmp_path, [{"messages": first[:2]}])


def test_parts_of_type_text_are_joined_and_others_refused(tmp_path: Path) -> None:
    parts = [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]
    (found,) = conversations(tmp_path, [{"messages": [{"role": "user", "content": parts}, TWO[1]]}])
    assert found.prompt == "ab"
    image = [{"role": "user", "content": [{"type": "image_url", "image_url": "x"}]}, TWO[1]]
    assert refusal(tmp_path, [{"messages": image}]) == (
        "/a.jsonl, row 1, field 'messages', turn 1, 'content': is an object with type, image_url; expected "
        "parts of type text."
    )


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (
            [{"instruction": "a", "outputs": "b"}],
            "/a.jsonl: the columns instruction, outputs are of no known format (messages, sharegpt, texts, alpaca, "
            "flan, prompt-response); the nearest is alpaca, which lacks output (is it 'outputs'?). Or name your "
            "columns, columns.prompt and columns.response.",
        ),
        (
            [{"mesages": TWO}],
            "/a.jsonl: the columns mesages are of no known format (messages, sharegpt, texts, alpaca, flan, "
            "prompt-response); the nearest is messages, which lacks messages (is it 'mesages'?). Or name your columns, "
            "columns.prompt and columns.response.",
        ),
        (
            [{"messages": [{"speaker": "a", "said": "b"}]}],
            "/a.jsonl, field 'messages': is a list of an object with speaker, said; expected [{role, content}, ...], "
            "[{from, value}, ...], [text, text, ...].",
        ),
        (
            [{"prompt": "a", "question": "b", "response": "c"}],
            "/a.jsonl: the columns prompt and question could both be the prompt; name the one to read, such as "
            "columns.prompt=prompt and columns.response=response.",
        ),
        (
            [{"prompt": "a", "response": "b"}, {"prompt": "c", "reply": "d"}],
            "/a.jsonl, row 2: lacks the field 'response', which the first row has; its fields are prompt, reply.",
        ),
        (
            [{"prompt": "a", "response": ["b"]}],
            "/a.jsonl, row 1, field 'response': is a list of 'b'; expected a text.",
        ),
        (
            [{"prompt": "a", "response": " \n"}],
            "/a.jsonl, row 1: the response of turn 2 is empty; give a text, or set `unusable: drop` to leave such rows "
            "out.",
        ),
        (
            [{"messages": TWO[:3]}],
            "/a.jsonl, row 1: the conversation ends with the user ('And 4?'), so that its last turn has no response to "
            "train; remove that turn, or set `unusable: drop` or `turns: first`.",
        ),
        (
            [{"messages": TWO[1:]}],
            "/a.jsonl, row 1: turn 1 is of the assistant; expected the user, as user and assistant alternate and the "
            "user begins; correct the row or set `unusable: drop`.",
        ),
        (
            [{"conversations": [{"from": "tool", "value": "x"}]}],
            "/a.jsonl, row 1, field 'conversations', turn 1, 'from': the role 'tool' has no place in a template; "
            "expected one of system, developer, user, human, prompter, assistant, gpt, chatgpt, model, bot, bing, "
            "bard; leave such rows out, or rewrite them without it.",
        ),
        (
            [{"messages": [{"role": "system", "content": "x"}, *TWO], "system": "y"}],
            "/a.jsonl, row 1: has a system text in its messages and in 'system'; keep one.",
        ),
    ],
)
def test_what_cannot_be_read_is_refused_with_file_row_field_and_the_way_out(
    tmp_path: Path, rows: list[Row], message: str
) -> None:
    assert refusal(tmp_path, rows) == message


def test_unusable_rows_are_left_out_and_counted_where_the_spec_says_so(tmp_path: Path) -> None:
    rows = [
        {"messages": turns}
        for turns in (TWO[:3], TWO[1:], TWO, [TWO[0], {"role": "assistant", "content": ""}])
    ]
    source = opened(written(tmp_path, "a.jsonl", rows), unusable="drop")
    assert [one.where[-5:] for one in source.conversations()] == ["row 3"]
    assert source.dropped == {"ends with the user": 1, "roles that do not alternate": 1, "empty response": 1}
    with pytest.raises(UnusableError):
        conversations(tmp_path, rows)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.csv", b"a,b", "a file ending in '.csv' is not read; give .jsonl"),
        ("a.gz", b"", "a file ending in '.gz' is not read"),
        ("a", b"", "a file ending in 'no suffix' is not read"),
        ("a.jsonl", b" \n", "holds no rows"),
        ("a.json", b"[]", "holds no rows"),
        ("a.json", b"[1]", "row 1: is '1'; expected an object with named fields"),
        ("a.jsonl", b'{"a": 1}\n[1]\n', "row 2: is a list; expected an object with named fields"),
        ("a.json", b'{\n "a": 1\n}', "row 1: is not valid JSON"),
        ("a.json", b'[{"a": 1} {"a": 2}]', "row 1: is followed by '{'; expected ',' or ']'"),
        ("a.json", b'[{"a": 1}, ', "row 2: is not valid JSON"),
        ("a.json", b'[{"a": 1}', "row 1: is followed by the end of the file"),
        ("a.json", b'[{"a": 1}] x', "goes on after the end of its list ('x')"),
        ("a.json", b'[{"a": "\\ud800"}]', "row 1: is not valid JSON: '\\ud800' is half of a character"),
        (
            "a.jsonl",
            b'{"a": 1}\n{"a": "\xff"}',
            "a.jsonl, line 2: is not UTF-8 text (invalid start byte); save the file",
        ),
        ("a.jsonl.gz", b"no archive", "cannot be read (Not a gzipped file"),
        (
            "a.jsonl.gz",
            gzip.compress(b'{"a": 1}\n' * 99, mtime=0)[:-9],
            "cannot be read (Compressed file ended",
        ),
        ("a.parquet", b"PAR1", "is not a readable parquet table"),
        ("a.json", b"[" + b"[" * 100_000, "row 1: is not valid JSON: it is nested too deeply"),
    ],
)
def test_damaged_files_are_refused_with_their_name(
    tmp_path: Path, name: str, content: bytes, message: str
) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError) as caught:
        list(open_rows(tmp_path / name).all)
    assert str(tmp_path / name) in str(caught.value)
    assert message in str(caught.value)


def test_a_missing_file_a_folder_and_a_device_are_no_data(tmp_path: Path) -> None:
    for path, message in (
        (tmp_path / "no.jsonl", "not found"),
        (tmp_path, "is a folder"),
        (Path("/dev/zero"), "not found"),
    ):
        with pytest.raises(UserError, match=message):
            open_rows(path)


def test_an_archive_that_unpacks_to_far_more_than_it_is_is_refused(tmp_path: Path) -> None:
    line = json.dumps({"prompt": "a", "response": "b" * 1000}).encode() + b"\n"
    (tmp_path / "a.jsonl.gz").write_bytes(gzip.compress(line * 40_000, mtime=0))
    with refused("unpacks to over 16,777,216 bytes, 100 times its size"):
        list(opened(tmp_path / "a.jsonl.gz").conversations())


def test_a_table_that_unpacks_to_far_more_than_it_is_is_refused(tmp_path: Path) -> None:
    table = pa.table({"prompt": ["a" * 2**20] * 40, "response": ["b"] * 40})
    pq.write_table(table, tmp_path / "a.parquet", compression="zstd", use_dictionary=False)
    with pytest.raises(UserError, match="field 'prompt': unpacks to"):
        opened(tmp_path / "a.parquet")


def test_a_row_is_bounded_in_lines_and_in_lists(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(read, "MAX_ROW", 2**17)
    long = [{"prompt": "a", "response": "b"}, {"prompt": "a", "response": "b" * 2**18}]
    for name in ("a.jsonl", "a.json"):
        with refused("has over 131,072 characters", place="row 2"):
            list(open_rows(written(tmp_path, name, long)).all)


@given(
    st.lists(
        st.dictionaries(st.text(max_size=3), st.text(max_size=200_000 // 3), max_size=3),
        min_size=1,
        max_size=6,
    )
)
def test_a_list_is_read_as_json_reads_it_wherever_the_pieces_end(
    tmp_path_factory: pytest.TempPathFactory, rows: list[dict[str, str]]
) -> None:
    path = tmp_path_factory.mktemp("list") / "a.json"
    for text in (json.dumps(rows), json.dumps(rows, indent=3, ensure_ascii=False)):
        path.write_text(text, encoding="utf-8")
        assert [row for _, row in open_rows(path).all] == rows


def test_a_list_longer_than_a_piece_is_read_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [{"prompt": "é" * n, "n": n} for n in range(60)]
    (tmp_path / "a.json").write_text(json.dumps(rows))
    for chunk in (1, 7, 64):
        monkeypatch.setattr(read, "CHUNK", chunk)
        monkeypatch.setattr(read, "MAX_ROW", 2**12 * chunk)
        assert [row for _, row in open_rows(tmp_path / "a.json").all] == rows
