"""What is wrong in a file, in the words of the file: pydantic's findings less the names of its inner types."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import UnionType
from typing import Any, Union, get_args, get_origin

from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo

from sftlab.config.documents import unknown_hint
from sftlab.errors import SHOWN, Place, UserError

KINDS = {
    "tuple_type": "expected a list, such as [a, b]",
    "dict_type": "expected keys with values, such as {key: value}",
    "model_type": "expected keys with values, such as {key: value}",
}
Keys = tuple[str | int, ...]


@dataclass(frozen=True)
class Finding:
    """One error at a place of the document.

    forms: where on the way the document may have one of several forms, the place of the first such field, and
    the form that this error is about. nested: whether that form has several forms in its turn.
    """

    place: Keys
    entry: Mapping[str, Any]
    forms: tuple[Keys, str] | None
    nested: bool = False


@dataclass(frozen=True)
class Explained:
    """One error in the words of the document: its keys, what is wrong, the value that was found, and what to do."""

    keys: Keys
    problem: str
    value: Any = None
    advice: str = ""

    def error(self, source: str) -> UserError:
        """The error, in a source such as a file or an option."""
        field = ".".join(map(str, self.keys)) or None
        return UserError(
            self.problem, place=Place(source, field=field, unit="key"), value=self.value, advice=self.advice
        )


def explained(model: type[BaseModel], document: Mapping[str, Any], error: ValidationError) -> list[Explained]:
    """Everything that is wrong, by field, with what was expected and found."""
    found = [_finding(document, entry) for entry in error.errors()]
    inner = [finding.place for finding in found if finding.entry["type"] != "too_short"]
    # A list whose only entry is wrong is also reported as empty.
    reported = [
        f
        for f in found
        if f.entry["type"] != "too_short" or not any(place[: len(f.place)] == f.place for place in inner)
    ]
    lines = [_explained(model, f) for f in _of_one_form(reported)]
    return list({(line.keys, line.problem): line for line in lines}.values())


def _finding(document: Mapping[str, Any], entry: Any) -> Finding:
    """The place as the document has it: a part that is in neither its mappings nor its lists is a name of pydantic."""
    place: list[str | int] = []
    current: Any = document
    dropped: list[tuple[Keys, str]] = []
    parts: Sequence[str | int] = entry["loc"]
    for number, part in enumerate(parts):
        last = number == len(parts) - 1
        if isinstance(current, Mapping) and (part in current or (last and entry["type"] == "missing")):
            place.append(part)
            current = current.get(part)
        elif isinstance(current, list | tuple) and isinstance(part, int) and part < len(current):
            place.append(part)
            current = current[part]
        elif part != "[key]":  # of a mapping whose keys are checked, and no form
            dropped.append((tuple(place), str(part)))
    return Finding(tuple(place), entry, dropped[0] if dropped else None, len(dropped) > 1)


def _of_one_form(findings: Sequence[Finding]) -> Iterator[Finding]:
    """Of a field with several forms only the errors of the form that goes furthest; none fits: the first one."""
    best: dict[Keys, str] = {}
    for field in dict.fromkeys(f.forms[0] for f in findings if f.forms):
        mine = [f for f in findings if f.forms and f.forms[0] == field]
        depth: dict[str, tuple[int, bool]] = {}
        for f in mine:
            assert f.forms is not None
            # Of two that fail at the same place, the one whose own rule is broken was meant.
            reached = len(f.place), f.entry["type"] == "value_error"
            depth[f.forms[1]] = max(depth.get(f.forms[1], (0, False)), reached)
        best[field] = max(depth, key=lambda form: depth[form])
    for f in findings:
        if f.forms is None or best[f.forms[0]] == f.forms[1]:
            yield f


def _explained(model: type[BaseModel], finding: Finding) -> Explained:
    entry, place = finding.entry, finding.place
    if entry["type"] == "extra_forbidden":
        hint = unknown_hint(place[-1], sorted(_fields_at(model, place[:-1])))
        return Explained(place, f"unknown key {'.'.join(map(str, place))!r}", entry["input"], hint)
    if entry["type"] == "missing":
        return Explained(place, "is required")
    message = _expected(entry)
    field = _field_at(model, finding.forms[0]) if finding.forms is not None else None
    if field is not None and field.description and entry["type"] != "value_error":  # that says it itself
        own = finding.forms is not None and place == finding.forms[0]
        message = f"{'' if own or finding.nested else message + '; '}expected {field.description}"
    if not place:  # of the document as a whole
        return Explained(place, message)
    shown = repr(entry["input"])
    shown = shown if len(shown) <= SHOWN else f"{shown[:SHOWN]}..."
    return Explained(place, f"{message} (found {shown})", entry["input"])


def _expected(entry: Mapping[str, Any]) -> str:
    if entry["type"] == "too_short":  # of a list
        least = entry["ctx"]["min_length"]
        return f"expected at least {least:,} item{'' if least == 1 else 's'}"
    return KINDS.get(entry["type"], str(entry["msg"]).removeprefix("Value error, "))


def _field_at(model: type[BaseModel], place: Keys) -> FieldInfo | None:
    """The innermost field on the way to a place."""
    field, current = None, model
    for part in place:
        inner = current.model_fields.get(str(part))
        if inner is None:
            return field
        field = inner
        record = _record_type(field.annotation)
        if record is None:
            return field
        current = record
    return field


def _fields_at(model: type[BaseModel], place: Keys) -> set[str]:
    """Names of the fields of the record at a place; empty where a place is no record."""
    current: Any = model
    for part in place:
        record = _record_type(current)
        if record is not None:
            field = record.model_fields.get(str(part))
            current = None if field is None else field.annotation
        else:
            current = _values_type(current)
    record = _record_type(current)
    return set(record.model_fields) if record is not None else set()


def _values_type(annotation: Any) -> Any:
    """What a mapping or list of an annotation holds; None where it is neither."""
    options = get_args(annotation) if get_origin(annotation) in (Union, UnionType) else (annotation,)
    for option in options:
        kind, held = get_origin(option), get_args(option)
        if isinstance(kind, type) and issubclass(kind, Mapping | Sequence) and held:
            return held[-1] if issubclass(kind, Mapping) else held[0]
    return None


def _record_type(annotation: Any) -> type[BaseModel] | None:
    """The record that an annotation is or may be."""
    options = get_args(annotation) if get_origin(annotation) in (Union, UnionType) else (annotation,)
    return next((o for o in options if isinstance(o, type) and issubclass(o, BaseModel)), None)
