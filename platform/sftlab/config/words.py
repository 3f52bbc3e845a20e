"""Fields that are None in Python and a word in files, such as `auto`.

null is refused in files, as it has another meaning for every field.
"""

from __future__ import annotations

from typing import Any

from pydantic import BeforeValidator, ValidationInfo

# The context of `model_validate` for what is read from files and overrides.
FROM_FILE = {"from_file": True}


def word(text: str) -> BeforeValidator:
    """Read this word as None. Constraints of the field come before this in `Annotated`; they do not hold for None."""

    def read(given: Any, info: ValidationInfo) -> Any:
        if given is None and info.context == FROM_FILE:
            raise ValueError(f"null is no longer read; write {text}")
        return None if given == text else given

    return BeforeValidator(read)


AUTO = word("auto")
"""Chosen by the program; the field's description says how."""
ALL = word("all")
"""Without a limit."""
NEVER = word("never")
"""Without an end or a repetition."""
