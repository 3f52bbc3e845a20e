"""Contradictions of a data spec."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from pydantic import ValidationError

from sftlab.datasets.spec import ColumnSpec, DataFileSpec, DrawSpec


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: ColumnSpec(prompt="a"), "name either prompt and response, or messages"),
        (
            lambda: ColumnSpec(prompt="a", response="b", messages="c"),
            "name either prompt and response, or messages",
        ),
        (lambda: ColumnSpec(messages="c", input="d"), "messages holds whole conversations"),
        (lambda: DrawSpec(max_tokens=5), "max_tokens and fit go together"),
        (
            lambda: DataFileSpec(source="a", format="flan", columns=ColumnSpec(prompt="a", response="b")),
            "leave format out",
        ),
    ],
)
def test_contradictions_of_a_spec_are_refused(build: Callable[[], object], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        build()
