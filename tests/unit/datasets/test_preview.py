"""What `sftlab data show` prints: lengths, repetitions, overlap with benchmarks, tokens with the trained part."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sftlab.datasets.conversations import Conversation, Turn, exchange
from sftlab.datasets.encode import Encoder
from sftlab.datasets.overlap import Duplicates, Overlap, read_questions, words
from sftlab.datasets.preview import Model, Preview, as_json, preview, quantiles, token_texts
from sftlab.datasets.preview_text import as_text, plain
from sftlab.datasets.source import open_data
from sftlab.datasets.spec import DataFileSpec
from sftlab.datasets.templates import make_template
from sftlab.errors import UserError
from tests.support.refusals import refused
from tests.support.tokenizers_built import byte_level, merging, metaspace

ROWS = [
    {"instruction": "Hi", "output": "Ho", "id": 1},
    {"instruction": "hi!", "output": "He", "id": 2},
    {"instruction": "Hi", "output": "Ho", "id": 3},
    {"instruction": "Say it", "output": "It", "id": 4},
]


def model(tokenizer: Any, name: str = "models/m", limit: int | None = None) -> Model:
    return Model(Encoder(tokenizer, make_template("paper", tokenizer, name), name), limit)


def shown(folder: Path, rows: list[dict[str, Any]], models: list[Model], **options: Any) -> Preview:
    (folder / "a.jsonl").write_text("\n".join(json.dumps(row) for row in rows))
    fields = {name: options.pop(name) for name in ("unusable", "where") if name in options}
    source = open_data(DataFileSpec(source=str(folder / "a.jsonl"), **fields))
    return preview(source, make_template("paper"), models, **options)


def lines(found: Preview, folder: Path, colour: bool = False) -> list[str]:
    return as_text(found, colour).replace(f"{folder}/", "").split("\n")


def test_the_whole_preview_by_hand(tmp_path: Path) -> None:
    overlap = Overlap("bench.jsonl", ["Say it?", "Say what?"])
    found = shown(tmp_path, ROWS, [model(merging("Answer"), limit=99)], overlaps=[overlap], shown=1)
    # Tokens: <s> 1, "###Question: Hi" 15, line break and ### 4, Answer 1, ":" 1; blank, H, o, </s> 4.
    assert lines(found, tmp_path) == [
        "a.jsonl: JSON lines, format alpaca: it has the columns instruction and output",
        "  columns     prompt 'instruction', response 'output'; not read: id",
        "  examples    4 in 4 rows",
        "  template    paper",
        "  length      min 26, median 26, 95 % 30, max 30 tokens under models/m",
        "  trained     min 4, median 4, 95 % 4, max 4 tokens under models/m",
        "  too long    0 examples have over 99 tokens under models/m",
        "  repeated    1 examples (the first: a.jsonl, row 3 is a.jsonl, row 1); 1 prompts with several responses",
        "  overlap     bench.jsonl: 1 of 2 questions occur in 1 examples (the first: a.jsonl, row 4)",
        "",
        "a.jsonl, row 1: 26 tokens under models/m, 4 trained",
        r"  <s>|#|#|#|Q|u|e|s|t|i|o|n|:| |H|i|\n|#|#|#|Answer|:[[ |H|o|</s>]]",
        "",
    ]


def test_without_a_model_texts_are_shown_and_characters_counted(tmp_path: Path) -> None:
    found = shown(tmp_path, ROWS[:1], [])
    assert lines(found, tmp_path)[4:6] == [
        "  length      min 29, median 29, 95 % 29, max 29 characters",
        "  trained     min 3, median 3, 95 % 3, max 3 characters",
    ]
    assert lines(found, tmp_path)[-3:] == ["a.jsonl, row 1", r"  ###Question: Hi\n###Answer:[[ Ho]]", ""]


def test_colour_is_added_around_the_brackets_and_nothing_else_changes(tmp_path: Path) -> None:
    found = shown(tmp_path, ROWS, [model(byte_level())])
    coloured = as_text(found, colour=True)
    assert coloured.count("\x1b[1;32m[[") == 3
    assert coloured.replace("\x1b[1;32m", "").replace("\x1b[0m", "") == as_text(found, colour=False)


def test_what_a_terminal_would_obey_is_escaped(tmp_path: Path) -> None:
    evil = "a\x1b[31m\u202eb\r\n"
    assert plain(evil) == r"a\x1b[31m\u202eb\r\n"
    found = shown(tmp_path, [{"prompt": evil + "c", "response": evil + "c", evil: 1}], [model(byte_level())])
    assert "\x1b" not in as_text(found, colour=False)
    assert "\u202e" not in as_text(found, colour=False)


def test_long_parts_are_shown_by_their_ends(tmp_path: Path) -> None:
    rows = [{"prompt": "x" * 5000, "response": "y" * 300}]
    (text,) = [line for line in lines(shown(tmp_path, rows, []), tmp_path) if line.startswith("  ###")]
    # 13 + 5,000 + 11 characters, of which 1,200 are shown.
    assert " ... 3,824 characters ... " in text
    (tokens,) = [
        line
        for line in lines(shown(tmp_path, rows, [model(merging("Answer"))]), tmp_path)
        if line.startswith("  <s>")
    ]
    # 1 + 13 + 5,000 + 1 + 3 + 2 untrained tokens, 302 trained.
    assert "| ... 4,860 tokens ... |" in tokens
    assert "| ... 142 tokens ... |" in tokens


def test_every_model_is_measured_and_each_example_shown_under_each(tmp_path: Path) -> None:
    models = [model(byte_level(), "a"), model(metaspace(), "b", limit=30)]
    found = shown(
        tmp_path,
        [{"prompt": "Add " * 20, "response": "so"}, *({"prompt": "q", "response": "a"},) * 3],
        models,
    )
    assert [(example.model, example.where[-5:]) for example in found.examples[:4]] == [
        ("a", "row 1"),
        ("b", "row 1"),
        ("a", "row 2"),
        ("b", "row 2"),
    ]
    assert [lengths.model for lengths in found.lengths] == ["a", "b"]
    assert (found.lengths[0].limit, found.lengths[1].limit, found.lengths[1].over) == (None, 30, 1)


def test_an_example_that_is_longer_than_every_model_allows_is_refused_unless_a_length_is_given(
    tmp_path: Path,
) -> None:
    rows = [*ROWS, {"instruction": "long " * 30, "output": "so"}]
    models = [model(merging("Answer"), "a", limit=100), model(merging("Answer"), "b", limit=150)]
    with pytest.raises(UserError) as caught:
        shown(tmp_path, rows, models)
    assert str(caught.value).replace(f"{tmp_path}/", "") == (
        "a.jsonl, row 5: is longer than every model allows (173 tokens under a, which allows 100, 173 tokens under b, "
        "which allows 150); remove the row, or set draw.max_tokens, which leaves such examples out (here "
        "--max-tokens, which counts them)."
    )
    assert [one.over for one in shown(tmp_path, rows, models, max_tokens=120).lengths] == [1, 1]
    assert shown(tmp_path, rows, [*models[:1], model(merging("Answer"), "c", limit=173)]).conversations == 5


def test_a_file_of_which_nothing_is_left_says_why(tmp_path: Path) -> None:
    with refused(r"no example is left of 4 rows \(4 by where\)"):
        shown(tmp_path, ROWS, [], where={"id": (9,)})


def test_as_json_has_the_tokens_and_which_are_trained(tmp_path: Path) -> None:
    found = as_json(shown(tmp_path, ROWS, [model(merging("Answer"))], shown=1))
    assert json.loads(json.dumps(found)) == found
    (example,) = found["examples"]
    assert "".join(example["pieces"]) == "<s>###Question: Hi\n###Answer: Ho</s>"
    assert [p for p, trained in zip(example["pieces"], example["trained"], strict=True) if trained] == [
        *" Ho",
        "</s>",
    ]
    assert (found["format"], found["repeated"], found["rows"], found["conversations"]) == ("alpaca", 1, 4, 4)
    assert found["lengths"][0]["whole"] == {"min": 26, "median": 26, "95 %": 30, "max": 30}


@given(st.text(st.sampled_from("aB é東🙂\n.###"), min_size=1).map(str.strip).filter(bool))
def test_the_pieces_of_an_example_are_its_text(text: str) -> None:
    made = model(byte_level()).encoder
    conversation = exchange(text, text)
    pieces = token_texts(made, conversation, made.encode(conversation))
    assert "".join(pieces).replace("·", "") == "<s>" + made.template.render(conversation).text
    assert len(pieces) == len(made.encode(conversation).ids)


@given(st.lists(st.integers(0, 1000), min_size=1, max_size=50))
def test_quantiles_are_values_at_their_rank(values: list[int]) -> None:
    found = quantiles(values)
    assert (found["min"], found["max"]) == (min(values), max(values))
    for name, share in (("median", 50), ("95 %", 95)):
        assert sum(value <= found[name] for value in values) * 100 >= share * len(values)
        assert sum(value < found[name] for value in values) * 100 < share * len(values)


def test_words_ignore_case_punctuation_and_width_and_count_han_by_the_character() -> None:
    assert words("It's 3,5 Ｆｏｏ-bar_baz!") == ["it", "s", "3", "5", "foo", "bar", "baz"]
    assert words("東京は big ですか") == ["東", "京", "は", "big", "で", "す", "か"]


QUESTION = "Who wrote the second of the nine long books about trees?"


def found_by(questions: list[str], *conversations: Conversation) -> Overlap:
    overlap = Overlap("b", questions)
    for conversation in conversations:
        overlap.add(conversation)
    return overlap


def test_eight_words_in_a_row_are_an_overlap_wherever_they_are() -> None:
    eight = "say me, WHO wrote the second; of the nine long BOOKS!"
    seven = "wrote the second of the nine long"
    assert found_by([QUESTION], exchange(eight, "x", where="w")).found == {0: "w"}
    assert found_by([QUESTION], exchange("x", eight, where="w")).found == {0: "w"}
    assert found_by([QUESTION], exchange(seven, seven)).found == {}
    both = found_by(
        [QUESTION, QUESTION + " Say."], exchange(eight, "x", where="w"), exchange(eight, "y", where="v")
    )
    assert (both.found, both.examples) == ({0: "w", 1: "w"}, 2)


def test_a_short_question_overlaps_as_a_whole_turn_alone() -> None:
    assert found_by(["What is 3?"], exchange("what IS 3", "x", where="w")).found == {0: "w"}
    assert found_by(["What is 3?"], exchange("so what is 3?", "What is 3?")).found == {}
    later = Conversation((Turn("user", "a"), Turn("assistant", "b", True), Turn("user", "What is 3?")), "w")
    assert found_by(["What is 3?"], later).found == {0: "w"}


def test_the_wording_that_many_questions_share_is_no_overlap() -> None:
    frame = "answer the following question by the letter of the right choice: "
    few, many = [f"{frame} q{n}" for n in range(10)], [f"{frame} q{n}" for n in range(11)]
    assert len(found_by(few, exchange(f"{frame} other", "x")).found) == 10
    assert found_by(many, exchange(f"{frame} other", "x")).found == {}


def test_a_question_whose_words_are_all_shared_overlaps_as_a_whole() -> None:
    frame = "one two three four five six seven eight"
    found = found_by(
        [frame, *(f"{frame} q{n} and much more" for n in range(20))], exchange(frame, "x", where="w")
    )
    assert found.found == {0: "w"}


def test_repetitions_and_prompts_with_several_responses_are_counted() -> None:
    duplicates = Duplicates()
    for number, (prompt, response) in enumerate(
        [("a", "x"), ("b", "x"), ("a", "x"), ("A!", "y"), ("a", "z"), ("a", "x")]
    ):
        duplicates.add(exchange(prompt, response, where=str(number)))
    assert (duplicates.repeated, duplicates.first) == (2, ("2", "0"))
    assert (duplicates.prompts, duplicates.ambiguous) == (2, 1)


def test_questions_are_found_by_their_column(tmp_path: Path) -> None:
    file = tmp_path / "b.jsonl"
    file.write_text('{"question": "a?", "prompt": "b", "answer": "c"}\n')
    assert read_questions(file) == ["a?"]
    file.write_text('{"ask": "a?"}\n')
    with refused(r"has no column of questions \(question, prompt,", advice="its columns are ask"):
        read_questions(file)
    file.write_text('{"question": "a?"}\n{"question": ""}\n')
    with refused(place="row 2, field 'question'", value="", expected="a non-empty text"):
        read_questions(file)
