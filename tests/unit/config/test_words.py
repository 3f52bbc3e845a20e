"""Fields of a runtime that take a word in place of a number, and refuse null in files."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from sftlab.errors import UserError
from sftlab.execution.runtime import Runtime
from sftlab.inference.spec import EngineRuntime
from sftlab.studies.load import load_runtime

PAGE = (Path(__file__).parents[3] / "docs" / "command-line.md").read_text()
SECTION = PAGE.split("### Words in place of numbers")[1].split("###")[0]
FIELDS = [
    (word, field)
    for word, _, fields in re.findall(r"^\| `(\w+)` \| (.+?) \| (.+) \|$", SECTION, re.MULTILINE)
    for field in re.findall(r"`([\w.]+)`", fields)
]


def value(runtime: Runtime, field: str) -> Any:
    found: Any = runtime
    for part in field.split("."):
        found = getattr(found, part)
    return found


@pytest.mark.parametrize(("word", "field"), FIELDS)
def test_a_word_of_the_documentation_is_read(word: str, field: str) -> None:
    assert value(load_runtime(None, [f"runtime.{field}={word}"]), field) is None


@pytest.mark.parametrize(("word", "field"), FIELDS)
def test_null_is_refused_with_the_word_to_write(word: str, field: str) -> None:
    with pytest.raises(UserError, match=rf"{field}: null is no longer read; write {word}"):
        load_runtime(None, [f"runtime.{field}=null"])


def test_every_field_that_may_be_none_is_documented_but_for_addresses() -> None:
    def optional(model: Any, above: str = "") -> list[str]:
        found = []
        for name, field in model.model_fields.items():
            if hasattr(field.annotation, "model_fields"):
                found += optional(field.annotation, f"{above}{name}.")
            elif type(None) in getattr(field.annotation, "__args__", ()):
                found.append(f"{above}{name}")
        return found

    assert set(optional(Runtime)) - {field for _, field in FIELDS} == {"tracking.address"}


@pytest.mark.parametrize("number", ["0", "-1"])
@pytest.mark.parametrize("field", ["engine.threads", "engine.timeout_seconds", "training.micro_batch_size"])
def test_a_number_is_checked_as_before(field: str, number: str) -> None:
    with pytest.raises(UserError, match=rf"{field}: Input should be greater than"):
        load_runtime(None, [f"runtime.{field}={number}"])
    assert value(load_runtime(None, [f"runtime.{field}=3"]), field) == 3


def test_another_word_is_refused() -> None:
    with pytest.raises(UserError, match=r"engine\.threads"):
        load_runtime(None, ["runtime.engine.threads=never"])


def test_python_gives_none() -> None:
    assert EngineRuntime(timeout_seconds=None).timeout_seconds is None
