"""Commands that are printed for pasting are read by a shell as the words that were meant."""

from __future__ import annotations

import re
import shlex
import subprocess
from pathlib import Path

import pytest

from sftlab.cli.common import with_advice_to_log_later
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


def test_no_other_place_writes_a_value_into_a_command() -> None:
    """A command with a value in braces, in an f-string, would not be quoted."""
    names = r"(?:sftlab|mlflow|python|ray|git|make|pip|cp|rm|export|kubectl|aws)"
    commands = re.compile(rf"""f["'][^"']*\b{names} (?:[a-z-]+ )+(?:--?[a-z-]+ )*\{{(?!command\()""")
    found = [
        f"{path.name}: {line.strip()}"
        for path in sorted(PLATFORM.rglob("*.py"))
        for line in path.read_text(encoding="utf-8").splitlines()
        if commands.search(line)
    ]
    assert found == []
    assert commands.search('f"See sftlab track {file}"') and commands.search("f'run mlflow ui --port {port}'")
