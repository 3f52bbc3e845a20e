"""That a block raises UserError, asserted on its fields."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from sftlab.errors import UserError

ANY = object()


@contextmanager
def refused(
    problem: str = "",
    *,
    place: str | None = None,
    field: str | None = None,
    value: Any = ANY,
    expected: str = "",
    advice: str = "",
) -> Iterator[pytest.ExceptionInfo[UserError]]:
    """The block raises UserError with these fields.

    Args:
        problem, expected, advice: patterns that are found in the fields of these names.
        place: the place as text ends with it, such as "a.jsonl, row 3".
        field: `place.field`.
        value: equal to the field.
    """
    with pytest.raises(UserError) as caught:
        yield caught
    error = caught.value
    for name, pattern in (("problem", problem), ("expected", expected), ("advice", advice)):
        found = getattr(error, name)
        assert re.search(pattern, found), f"{name}: {found!r} does not match {pattern!r}"
    if place is not None:
        assert str(error.place).endswith(place), f"place: {error.place} does not end with {place!r}"
    if field is not None:
        assert error.place is not None and error.place.field == field, f"field: {error.place}"
    if value is not ANY:
        assert error.value == value, f"value: {error.value!r} is not {value!r}"
