"""The base of every specification and runtime: frozen, unknown keys refused, defaults on the field."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, get_args

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    ValidationInfo,
    ValidatorFunctionWrapHandler,
    field_validator,
)

# False is the default, None: the ids of results hold such a field only where it is set.
Flag = Annotated[bool | None, AfterValidator(lambda value: value or None)]


class Frozen(BaseModel):
    """An immutable record that a component owns and a study is composed of.

    Types are strict where a conversion would hide a mistake: a truth value (YAML reads yes, no, on and off as one)
    and a text are no numbers, and a number or text is no truth value. A list is read as a tuple, and 2.0 as 2.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    @field_validator("*", mode="wrap")
    @classmethod
    def _no_conversion(cls, given: Any, read: ValidatorFunctionWrapHandler, info: ValidationInfo) -> Any:
        value = read(given)
        _check_kept(given, value, _takes_text(cls.model_fields[str(info.field_name)].annotation))
        return value


def _takes_text(annotation: Any) -> bool:
    """Whether texts are among the values of a type: such a field reads them itself, as buckets do `3:1.0`."""
    return annotation is str or any(
        _takes_text(part) for part in get_args(annotation) if part is not Ellipsis
    )


def _check_kept(given: Any, value: Any, text: bool) -> None:
    """Raises ValueError where a truth value became a number, a text either, or a number a truth value.

    text: whether the field takes texts and may read numbers from them. Records within are left to their fields.
    """
    if isinstance(value, bool):
        if not isinstance(given, bool):
            raise ValueError("expected true or false")
    elif isinstance(value, int | float):
        if isinstance(given, bool) or (isinstance(given, str) and not text):
            raise ValueError(f"expected a number, and {_shown(given)} is {_kind(given)}")
    elif isinstance(value, Mapping) and isinstance(given, Mapping):
        for key in value.keys() & given.keys():
            _check_kept(given[key], value[key], text)
    elif isinstance(value, list | tuple) and isinstance(given, list | tuple):
        for old, new in zip(given, value, strict=False):
            _check_kept(old, new, text)


def _shown(given: bool | str) -> str:
    return str(given).lower() if isinstance(given, bool) else repr(given)


def _kind(given: bool | str) -> str:
    return "a truth value, as YAML reads yes, on and true" if isinstance(given, bool) else "a text"
