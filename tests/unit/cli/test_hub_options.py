"""Every option that takes a model or a data set takes the id of a hub too."""

from __future__ import annotations

from collections.abc import Iterator
from inspect import signature
from pathlib import Path
from typing import Any, get_type_hints

import pytest
import typer
from typer.testing import CliRunner

from sftlab.cli.app import app
from sftlab.cli.options import DATA, MODEL, OnHub, on_hub
from sftlab.cli.rank import spread
from sftlab.errors import UserError

OUTPUTS = {"output"}
OTHER_FILES = {
    "file",
    "files",
    "study",
    "survey",
    "runtime",
    "templates",
    "about",
    "scores",
}  # of settings and tables
FOLDERS_OF_FILES = {"models"}  # of the catalogue, in `list`


def commands(group: typer.Typer, before: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    for info in group.registered_commands:
        assert info.callback is not None
        yield (*before, info.name or info.callback.__name__), info.callback
    for inner in group.registered_groups:
        assert inner.typer_instance is not None and inner.name is not None
        yield from commands(inner.typer_instance, (*before, inner.name))


def path_options() -> Iterator[tuple[tuple[str, ...], str, OnHub | None]]:
    """Command, parameter and mark of every parameter that is a path or several."""
    for words, callback in commands(app):
        hints = get_type_hints(callback, include_extras=True)
        plain = get_type_hints(callback)
        for name in signature(callback).parameters:
            if "Path" in str(plain.get(name)):
                yield words, name, on_hub(hints[name])


PATHS = list(path_options())
MARKED = [(words, name, mark) for words, name, mark in PATHS if mark is not None]


def test_a_path_is_a_model_or_data_or_one_of_the_others_that_are_known() -> None:
    assert len(MARKED) > 15
    for words, name, mark in PATHS:
        known = OUTPUTS | OTHER_FILES | (FOLDERS_OF_FILES if words == ("list",) else set())
        assert (name in known) != (mark is not None) or words == ("data", "show"), (words, name)
    assert {name for _, name, mark in MARKED if mark == MODEL} == {
        "base",
        "tuned",
        "packed",
        "model",
        "models",
    }
    assert {name for _, name, mark in MARKED if mark == DATA} == {
        *("source", "file", "data", "benchmark", "benchmarks")
    }


@pytest.mark.parametrize(("words", "name", "mark"), MARKED, ids=lambda value: str(value))
def test_an_id_of_a_hub_is_looked_up_before_anything_else(
    words: tuple[str, ...], name: str, mark: OnHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """HF_HUB_OFFLINE is set, and no cache has it."""
    del mark
    monkeypatch.chdir(tmp_path)
    found: Any = typer.main.get_command(app)
    for word in words:
        found = found.commands[word]
    arguments = []
    for parameter in found.params:
        if parameter.name == name:
            value = "absent-org/absent"
        elif parameter.required:
            value = "./x"
        else:
            continue
        arguments += [parameter.opts[0], value] if parameter.param_type_name == "option" else [value]
    done = CliRunner().invoke(app, spread([*words, *arguments]))
    assert isinstance(done.exception, UserError), done.output
    assert str(done.exception).startswith("absent-org/absent") and "HF_HUB_OFFLINE" in str(done.exception)
    assert not list(tmp_path.iterdir())
