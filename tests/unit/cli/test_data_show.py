"""`sftlab data show`: what it prints, and exit code 2 with file, row, field and a way out for bad input."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from sftlab.cli.app import app, main
from sftlab.errors import UserError
from tests.support.refusals import refused
from tests.support.tokenizers_built import CHATML, byte_level, merging

GOOD = [
    {"instruction": "What is the capital of France?", "output": "Paris"},
    {"instruction": "Add the numbers 1 and 2.", "output": "The sum is 3."},
]


def saved(folder: Path, tokenizer: Any, limit: int = 100) -> Path:
    tokenizer.save_pretrained(folder)
    (folder / "config.json").write_text(json.dumps({"max_position_embeddings": limit}))
    return folder


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return saved(tmp_path_factory.mktemp("base"), byte_level())


def written(folder: Path, rows: list[dict[str, Any]], name: str = "data.jsonl") -> Path:
    path = folder / name
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def show(*arguments: object, **environment: str) -> str:
    done = CliRunner().invoke(app, ["data", "show", *map(str, arguments)], env=environment)
    if done.exception is not None:
        raise done.exception
    assert done.exit_code == 0
    return done.stdout


def test_tokens_are_shown_with_the_trained_part_in_brackets_and_no_colour_where_there_is_no_terminal(
    base: Path, tmp_path: Path
) -> None:
    benchmark = written(tmp_path, [{"question": "What is the capital of France?"}], "questions.jsonl")
    text = show(written(tmp_path, GOOD), "--model", base, "--benchmark", benchmark, "--rows", 1)
    assert "format alpaca: it has the columns instruction and output" in text
    assert "examples    2 in 2 rows" in text
    assert f"too long    0 examples have over 100 tokens under {base}" in text
    assert "questions.jsonl: 1 of 1 questions occur in 1 examples" in text
    assert ":[[ Paris|</s>]]" in text
    assert "sum" not in text and "\x1b" not in text


def test_json_holds_the_same(base: Path, tmp_path: Path) -> None:
    found = json.loads(show(written(tmp_path, GOOD), "--model", base, "--json", "--rows", 2))
    assert [len(example["pieces"]) for example in found["examples"]] == [
        found["lengths"][0]["whole"]["min"],
        found["lengths"][0]["whole"]["max"],
    ]
    first = found["examples"][0]
    assert [p for p, trained in zip(first["pieces"], first["trained"], strict=True) if trained] == [
        " Paris",
        "</s>",
    ]


def test_options_set_how_rows_are_read(tmp_path: Path) -> None:
    rows = [
        {"q": "ask", "a": "say", "kind": "x"},
        {"q": "ask", "a": "", "kind": "x"},
        {"q": "b", "a": "c", "kind": "y"},
    ]
    options = ["columns.prompt=q", "columns.response=a", "unusable=drop", "where.kind=[x]"]
    text = show(written(tmp_path, rows), *(word for option in options for word in ("--set", option)))
    assert "columns     prompt 'q', response 'a'" in text
    assert "examples    1 in 3 rows; left out: 1 by empty response, 1 by where" in text
    assert "###Question: ask" in text


def test_a_chat_template_and_a_file_of_jinja_text_are_templates_too(tmp_path: Path) -> None:
    tokenizer = byte_level(specials=["<|im_start|>", "<|im_end|>"])
    tokenizer.chat_template = CHATML
    folder = saved(tmp_path / "m", tokenizer)
    options = ["--model", folder, "--template", "chat", "--rows", 1, "--json"]
    (example,) = json.loads(show(written(tmp_path, GOOD), *options))["examples"]
    pieces = zip(example["pieces"], example["trained"], strict=True)
    assert "".join(text for text, trained in pieces if trained) == "Paris<|im_end|>"
    (tmp_path / "t.jinja").write_text("Q {{ instruction }}\nA {{ response }}\n")
    assert r"Q What is the capital of France?\nA[[ Paris]]" in show(
        written(tmp_path, GOOD), "--template", tmp_path / "t.jinja"
    )


@pytest.mark.parametrize(
    ("rows", "options", "message"),
    [
        ([{"ask": "a", "say": "b"}], [], "the columns ask, say are of no known format"),
        (
            [*GOOD, {"instruction": "a", "output": ""}],
            [],
            "data.jsonl, row 3: the response of turn 2 is empty",
        ),
        (
            [{"messages": [{"role": "user", "content": "a"}]}],
            [],
            "row 1: the conversation ends with the user ('a')",
        ),
        (
            [*GOOD, {"instruction": "a " * 99, "output": "b"}],
            ["--model"],
            "row 3: is longer than every model allows",
        ),
        (GOOD, ["--template", "TEMPLATE"], "template: lacks the variable {{ response }}"),
        (GOOD, ["--template", "nothing"], "nothing: is no template"),
        (GOOD, ["--template", "chat"], "template chat: is part of a tokenizer; name a model with --model"),
        (GOOD, ["--template", "chat", "--model"], "the tokenizer has no chat template"),
        (GOOD, ["--format", "sharegpt"], "format sharegpt needs a column messages, conversations"),
        (GOOD, ["--format", "alpacca"], "--format alpacca: is no format; did you mean 'alpaca'?"),
        (GOOD, ["--set", "format=alpacca"], "--set format: format: Input should be 'auto', 'messages'"),
        (GOOD, ["--set", "turn=first"], "unknown key 'turn'; did you mean 'turns'?"),
        (GOOD, ["--set", "columns.prompt=instruction"], "name either prompt and response, or messages"),
        (GOOD, ["--set", "source=x"], "the file is the argument of the command"),
        (GOOD, ["--benchmark", "TEMPLATE"], "is not read; give .jsonl"),
        (GOOD, ["--model", "nowhere"], "nowhere"),
    ],
)
def test_bad_input_ends_with_code_2_and_one_message(
    base: Path, tmp_path: Path, rows: list[dict[str, Any]], options: list[str], message: str, capsys: Any
) -> None:
    (tmp_path / "template").write_text("{{ instruction }}")
    words = [word.replace("TEMPLATE", str(tmp_path / "template")) for word in options]
    if words and words[-1] == "--model":
        words.append(str(base))
    with pytest.raises(SystemExit) as caught:
        main(["data", "show", str(written(tmp_path, rows)), *words])
    assert caught.value.code == 2
    assert message in capsys.readouterr().err


def test_a_tokenizer_that_reads_over_the_border_and_a_base_without_an_end_are_refused(tmp_path: Path) -> None:
    (tmp_path / "t.jinja").write_text("Q={{ instruction }}\nA={{ response }}")
    merged = saved(tmp_path / "merged", merging("A=Paris"))
    with refused(
        "the tokenizer of.*reads over the border between",
        place="data.jsonl, row 1",
        value="he capital of France?\nA=",
    ):
        show(written(tmp_path, GOOD), "--model", merged, "--template", tmp_path / "t.jinja")
    endless = saved(tmp_path / "endless", merging("ab", eos=None))
    with pytest.raises(UserError, match="no end-of-sequence token"):
        show(written(tmp_path, GOOD), "--model", endless)


def test_colour_is_used_on_a_terminal_alone_and_not_with_no_color(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    file = written(tmp_path, GOOD)
    for environment, coloured in (({}, True), ({"NO_COLOR": "1"}, False), ({"NO_COLOR": ""}, True)):
        monkeypatch.delenv("NO_COLOR", raising=False)
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        monkeypatch.setattr("sys.stdout.isatty", lambda: True)
        with pytest.raises(SystemExit):
            main(["data", "show", str(file)])
        assert ("\x1b[1;32m[[ Paris]]\x1b[0m" in capsys.readouterr().out) == coloured


def test_the_help_has_an_example() -> None:
    text = CliRunner().invoke(app, ["data", "show", "--help"], env={"COLUMNS": "80"}).stdout
    assert "Example: sftlab data show" in " ".join(text.split())
