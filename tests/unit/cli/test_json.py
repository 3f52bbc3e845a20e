"""`--json`: one object on stdout, with the keys that docs/command-line.md lists."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import typer
from typer.testing import CliRunner

from sftlab.cli.app import app
from sftlab.errors import ExitCode, UserError
from sftlab.files import write_text
from sftlab.store.artifact import Store
from sftlab.store.record import Step
from tests.support import survey_tables
from tests.support.weights_models import write_checkpoint

ROOT = Path(__file__).parents[3]
PAGE = (ROOT / "docs" / "command-line.md").read_text()
TINY = str(ROOT / "jobs" / "configs" / "tiny.yaml")


def rows_of(heading: str) -> list[list[str]]:
    """The cells of the first table below a heading of the page, without its head."""
    section = PAGE.split(f"## {heading}\n")[1].split("\n## ")[0]
    lines = re.findall(r"^\|(.+)\|$", section, re.MULTILINE)
    return [[cell.strip() for cell in line.split(" | ")] for line in lines[2:]]


def documented(command: str) -> set[str]:
    """The keys that the page lists for a command: those outside of brackets."""
    (keys,) = [keys for names, keys in rows_of("JSON") if f"`{command}`" in names]
    return set(re.findall(r"`(\w+)`", re.sub(r"\([^()]*\)", "", keys)))


def printed(*arguments: object) -> dict[str, Any]:
    done = CliRunner().invoke(app, [*map(str, arguments), "--json"], catch_exceptions=False)
    assert done.exit_code == ExitCode.SUCCESS
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def pair(folder: Path) -> list[object]:
    """Options of two small models."""
    for name, value in (("base", 1.0), ("tuned", 1.5)):
        weight = torch.full((4, 4), value)
        write_checkpoint(folder / name, {"model.layers.0.mlp.up_proj.weight": weight})
    return ["--base", folder / "base", "--tuned", folder / "tuned", "--output", folder / "out"]


def facts(folder: Path) -> list[object]:
    fact = {"subject": "France", "object": "Paris", "topic": "P36"}
    write_text(folder / "facts.jsonl", json.dumps(fact) + "\n")
    return ["--source", folder / "facts.jsonl", "--output", folder / "facts"]


def data_set(folder: Path) -> list[object]:
    write_text(folder / "data.jsonl", json.dumps({"instruction": "Add 1 and 2.", "output": "3"}) + "\n")
    return [folder / "data.jsonl"]


def packed(folder: Path) -> list[object]:
    printed("pack", *pair(folder))
    return ["--base", folder / "base", "--packed", folder / "out", "--output", folder / "back"]


def scores(folder: Path) -> list[object]:
    rows = [row for row in survey_tables.rows(models=survey_tables.MODELS[:3]) if row[5] in ("quiz", "sums")]
    return [survey_tables.write(folder / "scores.csv", rows), "--output", folder / "out"]


def committed(folder: Path) -> list[object]:
    store, step = Store(folder / "store"), Step("facts", "facts", {})
    write_text(store.path(step) / "a.txt", "a")
    store.commit(step)
    return ["--store", folder / "store"]


@pytest.mark.parametrize(
    ("command", "options"),
    [
        ("plan", lambda folder: [TINY, "--store", folder]),
        ("verify", committed),
        ("prepare", facts),
        ("data show", data_set),
        ("change", pair),
        ("restore", lambda folder: [*pair(folder), "--percent", "50"]),
        ("pack", pair),
        ("unpack", packed),
        ("compare", scores),
    ],
)
def test_a_command_prints_the_documented_keys(
    command: str, options: Callable[[Path], list[object]], tmp_path: Path
) -> None:
    assert set(printed(*command.split(), *options(tmp_path))) == documented(command)


def test_the_status_of_an_unfinished_study_has_all_keys_but_its_report(tmp_path: Path) -> None:
    found = printed("status", TINY, "--store", tmp_path / "store")
    assert set(found) == documented("status") - {"report"}
    assert (found["study"], found["steps"], found["built"], found["running"]) == ("tiny", 39, 0, [])
    assert {stage["stage"]: stage["steps"] for stage in found["stages"]}["tuned"] == 4


def leaves(group: Any, words: tuple[str, ...] = ()) -> list[tuple[str, Any]]:
    if not hasattr(group, "commands"):
        return [(" ".join(words), group)]
    return [leaf for name, inner in group.commands.items() for leaf in leaves(inner, (*words, name))]


def test_every_command_takes_json_and_has_its_keys_documented() -> None:
    commands = dict(leaves(typer.main.get_command(app)))
    assert [name for name, one in commands.items() if "--json" not in str([p.opts for p in one.params])] == []
    names = {name for cell, _ in rows_of("JSON") for name in re.findall(r"`([a-z ]+)`", cell)}
    assert names == commands.keys()


def test_an_error_leaves_stdout_empty(tmp_path: Path) -> None:
    done = CliRunner().invoke(
        app, ["change", "--base", "a", "--tuned", "b", "--output", str(tmp_path), "--json"]
    )
    assert isinstance(done.exception, UserError) and done.stdout == ""


def test_the_page_lists_every_exit_code() -> None:
    assert [int(code) for code, _ in rows_of("Exit codes")] == list(ExitCode)
