"""Commands that are printed for pasting are read by a shell as the words that were meant."""

from __future__ import annotations

import ast
import re
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest

from sftlab.cli.common import with_advice_to_log_later
from sftlab.cli.report import Wanted, reported
from sftlab.errors import UserError
from sftlab.shell import command
from sftlab.tracking.client import Tracked

PLATFORM = Path(__file__).parents[2] / "platform" / "sftlab"
NASTY = [
    "plain/study.yaml",
    "my study.yaml",
    "x; echo PASTED",
    "a & b",
    "it's",
    'say "x"',
    "$HOME",
    "`id`",
    "$(id)",
    "a#b",
    "# c",
    "*?[x]",
    "~",
    "a\\b",
    "two\nlines",
    "{a,b}",
    "!x",
    "é 東",
    "",
]


@pytest.mark.parametrize("text", NASTY)
def test_a_shell_reads_the_words_that_were_meant(text: str) -> None:
    words = ["printf", "%s|", text, "--store", text]
    written = command(*words)
    assert shlex.split(written) == words
    shell = subprocess.run(["sh", "-c", written], capture_output=True, text=True, check=True)
    assert shell.stdout == f"{text}|--store|{text}|" and shell.stderr == ""


def test_a_path_is_never_read_as_an_option() -> None:
    assert command("sftlab", "track", Path("-x y.yaml")) == "sftlab track './-x y.yaml'"
    assert command("sftlab", "--help") == "sftlab --help"


def test_variables_of_a_command_are_quoted_too() -> None:
    written = command("sh", "-c", 'printf "%s" "$A"', environment={"A": "x; echo $HOME"})
    shell = subprocess.run(["sh", "-c", written], capture_output=True, text=True, check=True)
    assert shell.stdout == "x; echo $HOME"


@pytest.mark.parametrize("text", [text for text in NASTY if text])
def test_the_command_that_shows_a_database_names_its_address_as_one_word(text: str) -> None:
    runs = Tracked(f"sqlite:////tmp/{text}/mlflow.db", "1", "2")
    printed, then = runs.how_to_look.rsplit("\n  then open ", 1)
    assert shlex.split(printed) == [
        "MLFLOW_DISABLE_TELEMETRY=true",
        "mlflow",
        "ui",
        "--backend-store-uri",
        f"sqlite:////tmp/{text}/mlflow.db",
    ]
    assert then == "http://127.0.0.1:5000/#/experiments/1/runs/2"


@pytest.mark.parametrize("text", [*(text for text in NASTY if text), "-x.yaml"])
def test_the_command_that_logs_later_names_its_file_as_one_word(text: str) -> None:
    with pytest.raises(UserError) as caught, with_advice_to_log_later("study", Path(text)):
        raise UserError("away")
    found = re.search(r"all the same\. `(.*)` with the same", str(caught.value), re.DOTALL)
    assert found is not None
    words = shlex.split(found[1])
    assert words[:2] == ["sftlab", "track"] and Path(words[2]) == Path(text)
    assert len(words) == 3 and not words[2].startswith("-")


def test_the_command_that_builds_what_a_report_lacks_names_its_file_as_one_word(tmp_path: Path) -> None:
    for name, builder in (("tiny.yaml", "run"), ("surveys/tiny.yaml", "survey")):
        file = tmp_path / f"x; echo PASTED `{builder}`.yaml"
        shutil.copy(PLATFORM.parents[1] / "jobs" / "configs" / name, file)
        with pytest.raises(UserError) as caught:
            reported([file], Wanted(), None, str(tmp_path / "store"), [])
        found = re.fullmatch(r"run `(.*)` first\.", caught.value.advice)
        assert found is not None and shlex.split(found[1]) == ["sftlab", builder, str(file)]


VALUE = "\0"  # the place of a value in a text
NAMES = "sftlab|mlflow|python|ray|git|pip|cp|rm|export|kubectl|aws"
COMMANDS = re.compile(
    rf"(?:\b(?:{NAMES}) (?:[a-z-]+ )*|\bmake (?:[a-z-]+ )+|{VALUE}(?:command|program){VALUE} )(?:--?[a-z-]+ )*{VALUE}"
)
FENCED = re.compile(r"```.*?```", re.DOTALL)  # a program in a page
SETTING = re.compile(r"[\w.]+: ")  # `split: dev` is a line of YAML


def flat(node: ast.expr) -> str:
    """A text with VALUE around each value in it; what is made by `command(...)` is left out."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return node.value
    if isinstance(node, ast.JoinedStr):
        return "".join(map(flat, node.values))
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
        return flat(node.left) + flat(node.right)
    value = node.value if isinstance(node, ast.FormattedValue) else node
    quoted = isinstance(value, ast.Call) and isinstance(value.func, ast.Name) and value.func.id == "command"
    return "" if quoted else f"{VALUE}{ast.unparse(value)}{VALUE}"


def unquoted(source: str) -> list[str]:
    """The texts of a module that put a value behind a command's name, or among other words between backquotes."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if not isinstance(node, ast.JoinedStr | ast.BinOp):
            continue
        text = flat(node)
        spans = [span for span in FENCED.sub("", text).split("`")[1::2] if not SETTING.match(span)]
        if COMMANDS.search(text) or any(
            VALUE in span and " " in re.sub(f"{VALUE}.*?{VALUE}", "", span) for span in spans
        ):
            found.append(f"line {node.lineno}: {text.replace(VALUE, '|')}")
    return found


def test_no_other_place_writes_a_value_into_a_command() -> None:
    """A command with a value in it would not be quoted."""
    found = {
        str(path.relative_to(PLATFORM)): lines
        for path in sorted(PLATFORM.rglob("*.py"))
        if (lines := unquoted(path.read_text(encoding="utf-8")))
    }
    assert {name: [re.sub("line [0-9]+: ", "", line) for line in lines] for name, lines in found.items()} == {
        "cli/app.py": ["sftlab |__version__|"],  # what --version prints
        "cli/store.py": [
            "|found.evaluation.slug|: sftlab |found.evaluation.id[:12]|"
        ],  # of a commit on a hub
    }


HEADS = [
    "sftlab run",
    "sftlab data show",
    "sftlab {command}",
    "mlflow ui --port",
    "git",
    "{program}",
    "export",
]
WRAPS = ["run `%s` first.", "See %s", "%s", "it ends; `%s`"]


@pytest.mark.parametrize("wrap", WRAPS)
@pytest.mark.parametrize("head", HEADS)
def test_every_way_to_write_a_value_into_a_command_is_found(head: str, wrap: str) -> None:
    """In one f-string, in several behind one another, by `+`, and over lines; `command(...)` is none of them."""
    text = wrap % (head + " {file}")
    before, after = text.split("{file}")
    cut = len(before) // 2
    for source in (
        f"f{text!r}",
        f"(f{before[:cut]!r}\n f{before[cut:]!r} f'{{file}}' {after!r})",
        f"f{before!r} + str(file) + {after!r}",
        f'f"""{text}\n"""',
    ):
        if "{" in before[:cut] and "}" not in before[:cut]:
            continue
        assert unquoted(source), source
    made = wrap % "{command('sftlab', 'run', file)}"
    assert unquoted(f'f"{made} of `{{file}}`, and `split: {{name}}`"') == []
